use throughline::clock::{Clock, Interval};
use throughline::exit::{Exit, Policy, SpeaksOf, exit_code};
use throughline::record::{Fact, Observation, RunRecord, Source, Verdict};

use crate::records;

const CHAIN: Policy = Policy {
    fail_on_degraded: false,
    speaks_of: SpeaksOf::Chain,
};
const STRICT: Policy = Policy {
    fail_on_degraded: true,
    ..CHAIN
};
const PROBER: Policy = Policy {
    fail_on_degraded: true,
    speaks_of: SpeaksOf::Prober { delivered: true },
};
const UNHEARD: Policy = Policy {
    fail_on_degraded: false,
    speaks_of: SpeaksOf::Prober { delivered: false },
};

fn with(verdict: Verdict, leftovers: bool) -> RunRecord {
    let mut record = if leftovers {
        records::leftovers()
    } else {
        records::pass()
    };
    record.verdict = verdict;
    record
}

fn interrupted(by: &str) -> RunRecord {
    let mut record = with(Verdict::Inconclusive, true);
    record.observations.push(Observation {
        seq: 99,
        source: Source::Prober,
        clock: Clock::Prober,
        stamp: None,
        at: Interval::point(0),
        learnt_ns: 0,
        fact: Fact::Interrupted { by: by.into() },
    });
    record
}

#[test]
fn exit_codes_are_what_the_table_promises() {
    use Verdict::{Degraded, Error, Fail, Inconclusive, Pass};
    for (verdict, leftovers, policy, code) in [
        (Pass, false, CHAIN, 0),
        (Fail, false, CHAIN, 1),
        (Degraded, false, CHAIN, 0),
        (Degraded, false, STRICT, 3),
        (Error, false, CHAIN, 4),
        (Inconclusive, false, CHAIN, 5),
        // Leftovers never hide a bad verdict, but they are worse than a late notification.
        (Pass, true, CHAIN, 7),
        (Degraded, true, STRICT, 7),
        (Fail, true, CHAIN, 1),
        (Error, true, CHAIN, 4),
        (Inconclusive, true, CHAIN, 5),
        // The prober's health: a verdict that was heard is 0, whatever it says of the chain.
        (Pass, false, PROBER, 0),
        (Fail, false, PROBER, 0),
        (Degraded, false, PROBER, 0),
        (Error, false, PROBER, 4),
        (Inconclusive, false, PROBER, 5),
        (Fail, true, PROBER, 7),
        (Pass, false, UNHEARD, 4),
        (Fail, false, UNHEARD, 4),
    ] {
        let got = exit_code(&with(verdict, leftovers), policy);
        assert_eq!(got, code, "{verdict:?}, leftovers {leftovers}, {policy:?}");
    }
}

#[test]
fn a_signal_outranks_everything() {
    for policy in [CHAIN, STRICT, PROBER, UNHEARD] {
        assert_eq!(exit_code(&interrupted("SIGINT"), policy), 130);
        assert_eq!(exit_code(&interrupted("SIGTERM"), policy), 143);
    }
    assert_eq!(exit_code(&interrupted("its deadline"), CHAIN), 5, "no signal");
}

#[test]
fn the_numbers_are_public() {
    let numbers = [
        (Exit::Pass, 0),
        (Exit::Fail, 1),
        (Exit::Usage, 2),
        (Exit::Degraded, 3),
        (Exit::Error, 4),
        (Exit::Inconclusive, 5),
        (Exit::GuardRefused, 6),
        (Exit::Leftovers, 7),
        (Exit::Signal(15), 143),
        (Exit::Signal(255), 255),
    ];
    for (exit, number) in numbers {
        assert_eq!(exit.code(), number, "{exit:?}");
    }
}
