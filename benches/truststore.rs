//! Growth of the work to compile a truststore with the certificates of its sources: `cargo bench --bench
//! truststore`.
//!
//! Prints `truststore shape=... certificates=... parse_ms=... compile_ms=...` for each shape and number: the
//! median of five runs. Shapes: `roots`, each with a name and key of its own; `one_name`, all of one name and
//! key, signed by a missing key; `cross_signed`, issued in turn by four roots of one name, each with its own
//! key in a source of its own.

use std::time::Instant;

use anyhow::Result;
use jiff::Timestamp;
use mtls_operator::pki::{
    certificate::Certificate,
    compile::{
        compile,
        offer::{CompileInput, Source, State},
    },
    pem_certificates::parse_pem_bundle,
};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};

const RUNS: usize = 5;

fn main() -> Result<()> {
    for shape in ["roots", "one_name", "cross_signed"] {
        for certificates in [100, 200, 400] {
            measure(shape, certificates)?;
        }
    }
    Ok(())
}

fn measure(shape: &str, certificates: usize) -> Result<()> {
    let texts = sources(shape, certificates)?;
    let (mut parsing, mut compiling) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let begun = Instant::now();
        let parsed = texts
            .iter()
            .map(|text| Ok(parse_pem_bundle(text)?))
            .collect::<Result<Vec<_>>>()?;
        parsing.push(begun.elapsed().as_secs_f64() * 1e3);
        let sources: Vec<_> = parsed
            .into_iter()
            .enumerate()
            .map(|(at, found)| source(at, found))
            .collect();
        let input = CompileInput {
            sources: &sources,
            previous: None,
            overlap: None,
            now: Timestamp::now(),
        };
        let begun = Instant::now();
        std::hint::black_box(compile(&input, &|| false).is_ok());
        compiling.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let [parse, compile] = [parsing, compiling].map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[RUNS / 2]
    });
    println!(
        "truststore shape={shape} certificates={certificates} parse_ms={parse:.1} compile_ms={compile:.1}"
    );
    Ok(())
}

fn source(at: usize, certificates: Vec<Certificate>) -> Source {
    Source {
        share: None,
        authority: format!("a{at}"),
        state: State::Active,
        issues: false,
        longest_leaf: None,
        certificates: Ok(certificates),
        completing: vec![],
        client: false,
    }
}

fn sources(shape: &str, certificates: usize) -> Result<Vec<String>> {
    let keys = (0..4)
        .map(|_| KeyPair::generate())
        .collect::<Result<Vec<_>, _>>()?;
    let (mut all, mut others) = (String::new(), Vec::new());
    for at in 0..certificates {
        all += &match shape {
            "roots" => named(&format!("Root {at}"))
                .self_signed(&KeyPair::generate()?)?
                .pem(),
            "one_name" => named("X")
                .signed_by(&keys[0], &Issuer::new(named("X"), &keys[1]))?
                .pem(),
            _ => {
                let issuer = Issuer::new(named("Root"), &keys[at % 4]);
                named(&format!("Issuing {at}"))
                    .signed_by(&KeyPair::generate()?, &issuer)?
                    .pem()
            }
        };
    }
    if shape == "cross_signed" {
        for key in &keys {
            others.push(named("Root").self_signed(key)?.pem());
        }
    }
    Ok(std::iter::once(all).chain(others).collect())
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}
