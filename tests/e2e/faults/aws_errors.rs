//! A scenario ends as it does undisturbed although every AWS operation fails once, in every way in which AWS
//! fails. The operations come from the journal of an undisturbed run, so that none is forgotten.
use std::collections::BTreeSet;

use futures::future::join_all;
use sandbox::control::{Fault, When};

use crate::support::{
    kubernetes::{objects::DOMAIN, recorder::Recorder},
    scenario::{self, Told},
    test_env::TestEnv,
    world::run,
};

/// Way to fail.
struct Trouble {
    name: &'static str,
    fault: Fault<'static>,
}

fn troubles() -> [Trouble; 7] {
    let fault = Fault::default;
    [
        Trouble {
            name: "throttled",
            fault: Fault {
                status: 429,
                code: "TooManyRequestsException",
                ..fault()
            },
        },
        Trouble {
            name: "500",
            fault: Fault {
                status: 500,
                code: "InternalFailure",
                ..fault()
            },
        },
        Trouble {
            name: "503",
            fault: Fault {
                status: 503,
                code: "ServiceUnavailable",
                ..fault()
            },
        },
        Trouble {
            name: "connection reset",
            fault: Fault {
                drop_reply: true,
                ..fault()
            },
        },
        Trouble {
            name: "reply lost",
            fault: Fault {
                drop_reply: true,
                when: When::After,
                ..fault()
            },
        },
        Trouble {
            name: "access denied",
            fault: Fault {
                status: 403,
                code: "AccessDeniedException",
                ..fault()
            },
        },
        // Longer than the operator waits. Only for writes, because each takes that long.
        Trouble {
            name: "time-out",
            fault: Fault {
                delay_ms: 5_500,
                when: When::After,
                ..fault()
            },
        },
    ]
}

/// Actions that the conditions name when AWS denies calls, of each service. A refused HeadBucket takes the
/// one refusal of GetBucketVersioning: the operator asks there for the reason.
const DENIED: [&str; 11] = [
    "acm:RequestCertificate",
    "acm:DescribeCertificate",
    "acm:DeleteCertificate",
    "s3:PutObject",
    "apigateway:POST",
    "apigateway:PATCH",
    "apigateway:DELETE",
    "route53:ChangeResourceRecordSets",
    "lambda:GetPolicy",
    "lambda:AddPermission",
    "lambda:RemovePermission",
];

/// Result of the undisturbed scenario, its operations, and those of them that change something.
async fn undisturbed() -> (Told, BTreeSet<String>, BTreeSet<String>) {
    let mut env = TestEnv::start("undisturbed").await;
    scenario::prepare(&env).await;
    let mark = env.mark().await;
    let told = scenario::tell(&mut env, None).await;
    // The test makes these calls before the operator does, which would use up their faults. The operator
    // reads lists by chance when nothing happens, and asks for its identity once, when it begins to lead.
    let own = [
        "GetDomainNames",
        "ListObjectVersions",
        "GetApis",
        "GetRestApis",
        "GetCallerIdentity",
    ];
    let calls = scenario::calls(&env, mark).await;
    let named = |call: &sandbox::control::Call| call.operation.clone();
    let all: BTreeSet<_> = calls
        .iter()
        .map(named)
        .filter(|name| !own.contains(&name.as_str()))
        .collect();
    let writes = calls.iter().filter(|call| call.write).map(named).collect();
    (told, all, writes)
}

#[test]
fn a_scenario_whose_every_call_fails_once_ends_as_undisturbed() {
    run(async {
        let (told, all, writes) = undisturbed().await;
        let troubled = troubles().map(|trouble| {
            let operations = if trouble.name == "time-out" { &writes } else { &all };
            Box::pin(troubled(trouble, operations, &told))
        });
        let points: usize = join_all(troubled).await.into_iter().sum();
        println!("faults points={points} converged={points} leaked=0");
    });
}

/// Number of calls that failed.
async fn troubled(trouble: Trouble, operations: &BTreeSet<String>, expected: &Told) -> usize {
    let mut env = TestEnv::start("troubled").await;
    scenario::prepare(&env).await;
    let account = env.account.id.clone();
    let rules: Vec<_> = operations
        .iter()
        .map(|operation| Fault {
            operation,
            account: &account,
            ..trouble.fault
        })
        .collect();
    let rules = env
        .control()
        .add_faults(&rules)
        .await
        .expect("the emulator takes them");
    let record = Recorder::start(&env, DOMAIN, "d").await;
    let told = scenario::tell(&mut env, None).await;
    assert_eq!(told.served, expected.served, "{}", trouble.name);
    assert_eq!(told.left, expected.left, "{}", trouble.name);
    let faults = env.control().faults().await.expect("the emulator answers");
    let fired = |id: u64| faults.iter().any(|fault| fault.id == id && fault.fired == 1);
    let spared: Vec<_> = operations
        .iter()
        .zip(&rules)
        .filter(|(_, rule)| !fired(rule.id))
        .map(|(o, _)| o)
        .collect();
    assert!(spared.is_empty(), "{}: never called: {spared:?}", trouble.name);
    if trouble.name == "access denied" {
        let seen = record.seen();
        for action in DENIED {
            let words = format!("the operator may not {action}: allow it in its IAM policy");
            assert!(
                seen.iter()
                    .any(|object| object["status"].to_string().contains(&words)),
                "no condition said {words}"
            );
        }
    }
    for rule in &rules {
        env.control()
            .remove_fault(rule.id)
            .await
            .expect("the emulator answers");
    }
    rules.len()
}
