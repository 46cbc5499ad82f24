//! Log output: one line per event on stderr, for people or as JSON for collectors.

use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, util::SubscriberInitExt};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Json,
    Compact,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not a log filter: {filter}")]
    Filter {
        filter: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("logging is set up already")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Sets up logging for the process. `filter` as EnvFilter reads it: "info" or "info,mtls_operator=debug".
pub fn init(filter: &str, format: Format) -> Result<(), Error> {
    let filter = EnvFilter::try_new(filter).map_err(|source| Error::Filter {
        filter: filter.into(),
        source,
    })?;
    subscriber(filter, format, std::io::stderr)
        .try_init()
        .map_err(Error::Twice)
}

fn subscriber<W>(filter: EnvFilter, format: Format, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    match format {
        Format::Json => Box::new(builder.json().flatten_event(true).finish()),
        Format::Compact => Box::new(builder.compact().finish()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: Format, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(EnvFilter::new(filter), format, move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_carries_fields_and_the_chain_of_an_error() {
        let error = Error::Filter {
            filter: "=".into(),
            source: EnvFilter::try_new("a=b=c").unwrap_err(),
        };
        let out = logged("info", Format::Json, || {
            tracing::debug!("hidden");
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                object = "a/b",
                "seen"
            );
        });
        let line: serde_json::Value = serde_json::from_str(out.trim()).unwrap();
        assert_eq!(
            (&line["message"], &line["object"], &line["level"]),
            (&"seen".into(), &"a/b".into(), &"WARN".into())
        );
        assert!(
            line["error"]
                .as_str()
                .unwrap()
                .starts_with("not a log filter"),
            "{line}"
        );
        assert_eq!(line["error.sources"].as_array().unwrap().len(), 1, "{line}");
    }

    #[test]
    fn compact_is_text_and_the_filter_goes_by_module() {
        let out = logged("warn,mtls_operator=debug", Format::Compact, || {
            tracing::debug!(n = 1, "ours");
            tracing::info!(target: "kube", "theirs");
        });
        assert!(
            out.contains("ours") && out.contains("n=1") && !out.contains("theirs"),
            "{out}"
        );
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let error = init("a=b=c", Format::Json).unwrap_err();
        assert_eq!(error.to_string(), "not a log filter: a=b=c");
    }
}
