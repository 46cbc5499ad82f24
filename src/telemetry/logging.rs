//! Log output: one line per event on stderr, as text for people or as JSON for collectors.

use std::{
    error::Error as StdError,
    fmt::{self, Display, Formatter},
    io::IsTerminal,
    sync::{Arc, Mutex},
};

use kube::{core::Status, runtime::watcher};
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, reload, util::SubscriberInitExt};

/// Format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Json,
    Compact,
}

/// Log filter, changeable while the process runs. Cheap to clone.
#[derive(Clone)]
pub struct Level {
    /// Filter at the start of the process.
    start: Arc<str>,
    now: Arc<Mutex<String>>,
    reload: Arc<Reload>,
}

type Reload = dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not a level: write error, warn, info, debug or trace, or nothing for the level of the start")]
    Level,
    #[error("not a log filter: {filter}")]
    Filter {
        filter: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("logging is set up already")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
    #[error("the level cannot be changed")]
    Reload(#[source] reload::Error),
}

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

impl Level {
    /// Returns the filter in force.
    pub fn filter(&self) -> String {
        self.now
            .lock()
            .expect("no thread panics while holding it")
            .clone()
    }

    /// Sets the log level of the operator's own modules, or restores the level of the start when `level` is
    /// empty. Libraries never log more than at the start: their details may contain data that must not be
    /// logged. Returns the filter that is then in force.
    ///
    /// # Errors
    /// [`Error::Level`]; [`Error::Reload`] does not happen while the process logs.
    pub fn set(&self, level: &str) -> Result<String, Error> {
        let filter = match level {
            "" => self.start.to_string(),
            level if LEVELS.contains(&level) => format!("{},mtls_operator={level}", self.start),
            _ => return Err(Error::Level),
        };
        let parsed = EnvFilter::try_new(&filter).map_err(|source| Error::Filter {
            filter: filter.clone(),
            source,
        })?;
        (self.reload)(parsed).map_err(Error::Reload)?;
        self.now
            .lock()
            .expect("no thread panics while holding it")
            .clone_from(&filter);
        Ok(filter)
    }
}

/// Sets up logging for the process. `filter` is in the syntax of EnvFilter: "info" or
/// "info,mtls_operator=debug".
pub fn init(filter: &str, format: Format) -> Result<Level, Error> {
    let colours = std::io::stderr().is_terminal();
    let (subscriber, level) = subscriber(filter, format, colours, std::io::stderr)?;
    subscriber.try_init().map_err(Error::Twice)?;
    Ok(level)
}

/// Formats an error with all its causes, for one log line: `error = %chain(&error)`. (As a `dyn Error` field,
/// which tracing supports too, JSON output would lose the causes.) A cause that an error prints itself is not
/// repeated, and an answer of the API server is its own sentence.
pub fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Display + 'a {
    struct Chain<'a>(&'a (dyn StdError + 'static));
    impl Display for Chain<'_> {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            let mut said = words(self.0);
            f.write_str(&said)?;
            for cause in std::iter::successors(source(self.0), |e| source(*e)) {
                let cause = words(cause);
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

/// Returns the sentence of an answer, in one line; its reason or code, when it has none.
pub fn sentence(status: &Status) -> String {
    let words: Vec<_> = status.message.split_whitespace().collect();
    match (words.is_empty(), status.reason.as_str()) {
        (false, _) => words.join(" "),
        (true, "") => format!("HTTP {}", status.code),
        (true, reason) => reason.to_owned(),
    }
}

/// Returns the words of one error without its causes, as far as they would hold an answer of the API server
/// as a Rust structure.
fn words(error: &(dyn StdError + 'static)) -> String {
    if let Some(kube::Error::Api(status)) = error.downcast_ref() {
        return sentence(status);
    }
    match error.downcast_ref() {
        Some(watcher::Error::InitialListFailed(_)) => "the list failed".to_owned(),
        Some(watcher::Error::WatchStartFailed(_)) => "the watch did not start".to_owned(),
        Some(watcher::Error::WatchError(status)) => sentence(status),
        Some(watcher::Error::WatchFailed(_)) => "the watch failed".to_owned(),
        _ => error.to_string(),
    }
}

fn source<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    let is_answer = matches!(error.downcast_ref(), Some(kube::Error::Api(_)))
        || matches!(error.downcast_ref(), Some(watcher::Error::WatchError(_)));
    error.source().filter(|_| !is_answer)
}

type Lines = Box<dyn Subscriber + Send + Sync>;

fn subscriber<W>(filter: &str, format: Format, colours: bool, writer: W) -> Result<(Lines, Level), Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let parsed = EnvFilter::try_new(filter).map_err(|source| Error::Filter {
        filter: filter.into(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_writer(writer)
        .with_env_filter(parsed);
    let (lines, reload): (Lines, Arc<Reload>) = match format {
        Format::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            (
                Box::new(builder.finish()),
                Arc::new(move |filter| handle.reload(filter)),
            )
        }
        Format::Compact => {
            let builder = builder.compact().with_ansi(colours).with_filter_reloading();
            let handle = builder.reload_handle();
            (
                Box::new(builder.finish()),
                Arc::new(move |filter| handle.reload(filter)),
            )
        }
    };
    let level = Level {
        start: filter.into(),
        now: Arc::new(Mutex::new(filter.into())),
        reload,
    };
    Ok((lines, level))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::EnvFilter;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Returns the level of a log without a reader, which stays usable.
    pub fn level(filter: &str) -> Level {
        let (lines, level) = subscriber(filter, Format::Json, false, std::io::sink).unwrap();
        Box::leak(Box::new(lines));
        level
    }

    pub fn logged(filter: &str, format: Format, log: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let (subscriber, _) = subscriber(filter, format, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, log);
        written.text()
    }

    #[test]
    fn json_carries_fields_and_causes() {
        let error = Error::Filter {
            filter: "=".into(),
            source: EnvFilter::try_new("a=b=c").unwrap_err(),
        };
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
        assert!(
            said.starts_with("not a log filter: =: error parsing level filter"),
            "{said}"
        );
    }

    #[test]
    fn a_cause_in_the_message_is_not_repeated() {
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
    fn an_answer_of_the_api_server_is_its_own_sentence() {
        let status = || {
            let mut status = Status::failure("leases is forbidden:\nnot for you", "Forbidden").with_code(403);
            status.metadata = Some(Default::default());
            status.boxed()
        };
        let errors: [Box<dyn StdError>; 4] = [
            Box::new(kube::Error::Api(status())),
            Box::new(watcher::Error::InitialListFailed(kube::Error::Api(status()))),
            Box::new(watcher::Error::WatchStartFailed(kube::Error::Api(status()))),
            Box::new(watcher::Error::WatchError(status())),
        ];
        let said = errors.map(|error| chain(&*error).to_string());
        assert_eq!(
            said,
            [
                "leases is forbidden: not for you",
                "the list failed: leases is forbidden: not for you",
                "the watch did not start: leases is forbidden: not for you",
                "leases is forbidden: not for you"
            ]
        );
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
    fn the_level_changes_only_for_the_operators_own_modules() {
        for format in [Format::Json, Format::Compact] {
            let written = Written::default();
            let writer = written.clone();
            let (subscriber, level) = subscriber("info", format, false, move || writer.clone()).unwrap();
            tracing::subscriber::with_default(subscriber, || {
                let say = |what: &str| {
                    tracing::debug!("ours {what}");
                    tracing::debug!(target: "kube_client", "theirs {what}");
                };
                say("before");
                assert_eq!(level.set("debug").unwrap(), "info,mtls_operator=debug");
                say("now");
                assert!(level.set("kube_client=trace").is_err() && level.set("loud").is_err());
                assert_eq!(level.filter(), "info,mtls_operator=debug");
                assert_eq!(level.set("").unwrap(), "info");
                say("after");
            });
            let text = written.text();
            assert!(
                text.contains("ours now") && !text.contains("before") && !text.contains("after"),
                "{text}"
            );
            assert!(!text.contains("theirs"), "{text}");
        }
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let error = init("a=b=c", Format::Json).err().unwrap();
        assert_eq!(error.to_string(), "not a log filter: a=b=c");
    }
}
