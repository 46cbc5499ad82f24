//! AWS's quotas in a world whose time runs faster.
use mtls_operator::aws::rates::{Operation, Rate, Rates};

/// Returns the value of `--aws-rate` that equals the operator's default where AWS's time runs `speed` times
/// as fast.
pub fn faster(speed: f64) -> String {
    let rates = Rates::default();
    let one = |operation: Operation| match rates.of(operation) {
        Rate::Unlimited => format!("{operation}=unlimited"),
        Rate::Limited { interval, burst } => {
            format!("{operation}=1/{}:{burst}", interval.as_secs_f64() / speed)
        }
    };
    Operation::ALL.map(one).join(",")
}
