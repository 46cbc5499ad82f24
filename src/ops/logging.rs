//! Log output: one line per event on stderr, for people or as JSON for collectors.

use std::{
    error::Error as StdError,
    fmt::{self, Display, Formatter},
    io::IsTerminal,
};

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
    let filter = EnvFilter::try_new(filter).map_err(|source| Error::Filter { filter: filter.into(), source })?;
    let colours = std::io::stderr().is_terminal();
    subscriber(filter, format, colours, std::io::stderr).try_init().map_err(Error::Twice)
}

/// An error with all that caused it, for one line of a log: `error = %chain(&error)`. (As a `dyn Error` field, which
/// tracing knows too, JSON output would lose the causes.) Some errors print their cause themselves: not twice then.
pub fn chain(error: &dyn StdError) -> impl Display + '_ {
    struct Chain<'a>(&'a dyn StdError);
    impl Display for Chain<'_> {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            let mut said = self.0.to_string();
            f.write_str(&said)?;
            for cause in std::iter::successors(self.0.source(), |e: &&dyn StdError| (*e).source()) {
                let cause = cause.to_string();
                if !said.contains(&cause) {
                    write!(f, ": {cause}")?;
                    said = cause;
                }
            }
            Ok(())
        }
    }
    Chain(error)
}

fn subscriber<W>(filter: EnvFilter, format: Format, colours: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        Format::Json => Box::new(builder.json().flatten_event(true).finish()),
        Format::Compact => Box::new(builder.compact().with_ansi(colours).finish()),
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
        let subscriber = subscriber(EnvFilter::new(filter), format, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_carries_fields_and_causes() {
        let error = Error::Filter { filter: "=".into(), source: EnvFilter::try_new("a=b=c").unwrap_err() };
        let out = logged("info", Format::Json, || {
            tracing::debug!("hidden");
            tracing::warn!(error = %chain(&error), object = "a/b", "seen");
        });
        let line: serde_json::Value = serde_json::from_str(out.trim()).unwrap();
        assert_eq!(
            (&line["message"], &line["object"], &line["level"]),
            (&"seen".into(), &"a/b".into(), &"WARN".into())
        );
        let said = line["error"].as_str().unwrap();
        assert!(said.starts_with("not a log filter: =: error parsing level filter"), "{said}");
    }

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        #[derive(Debug, thiserror::Error)]
        enum Layer {
            #[error("outer")]
            Outer(#[source] Box<Layer>),
            #[error("middle: {0}")]
            Middle(#[source] Box<Layer>),
            #[error("inner")]
            Inner,
        }
        let error = Layer::Outer(Box::new(Layer::Middle(Box::new(Layer::Inner))));
        assert_eq!(chain(&error).to_string(), "outer: middle: inner");
    }

    #[test]
    fn compact_is_text_and_the_filter_goes_by_module() {
        let out = logged("warn,mtls_operator=debug", Format::Compact, || {
            tracing::debug!(n = 1, "ours");
            tracing::info!(target: "kube", "theirs");
        });
        assert!(out.contains("ours") && out.contains("n=1") && !out.contains("theirs"), "{out}");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let error = init("a=b=c", Format::Json).unwrap_err();
        assert_eq!(error.to_string(), "not a log filter: a=b=c");
    }
}
