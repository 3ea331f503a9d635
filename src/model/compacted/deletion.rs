//! C1, the one place that allows a deletion.

use super::settings::{Name, Now, Rule, Rules};
use super::view::View;

/// Why nothing may be deleted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// The highest valid TERM names the instance itself.
    #[error("its own snapshot is the newest complete one")]
    OwnIsNewest,
    /// There was a complete snapshot, and no valid TERM names one now.
    #[error("no complete snapshot of the other instance is in the bucket")]
    NoProof,
    /// A restore reads the objects.
    #[error("a restore reads these objects (its pin expires in {} s)", .for_ms / 1000)]
    Pinned {
        /// For how much longer, unless it is renewed, in milliseconds.
        for_ms: i64,
    },
}

/// Decides whether `instance` may delete objects in its own folder, by what a fresh look at the bucket said.
///
/// | the highest valid TERM | pins on this instance | |
/// |---|---|---|
/// | names the other instance | none, or expired | allowed (C1) |
/// | names the other instance | one that has not expired | refused until it expires |
/// | names this instance | | refused |
/// | is missing, though TERMs were created | | refused: nothing proves that the other is complete |
/// | is missing, all TERMs are void, one of them for the latest run | none, or expired | allowed: nothing has ever been complete, nor can the run be any more |
pub fn may_delete(instance: &Name, view: &View, rules: Rules, now: Now) -> Result<(), Refused> {
    if !rules.keep(Rule::Proof) {
        return Ok(());
    }
    match &view.owner {
        Some(owner) if owner.instance == *instance => return Err(Refused::OwnIsNewest),
        None if view.ever_titled || !is_voided(view) => return Err(Refused::NoProof),
        Some(_) | None => {}
    }
    match view.pinned_until_ms {
        Some(until) if until > now.wall_ms => Err(Refused::Pinned { for_ms: until - now.wall_ms }),
        _ => Ok(()),
    }
}

/// Whether the latest run can never get a TERM.
fn is_voided(view: &View) -> bool {
    view.own.run.as_ref().is_some_and(|run| run.voided)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::model::compacted::view::{Offsets, Own, OwnRun, Owner};

    fn owner(instance: &str) -> Option<Owner> {
        let (run, reached) = ("r".into(), Offsets::new());
        Some(Owner { number: 3, instance: instance.into(), run, created_ms: 0, tainted: false, gap: false, reached })
    }

    fn own(voided: bool) -> Own {
        let run = OwnRun {
            number: 1,
            run: "r".into(),
            started_ms: 0,
            after_term: 0,
            titled: None,
            voided,
            objects: true,
            intact: false,
            stored: Offsets::new(),
            gap: false,
            restorable: Offsets::new(),
            seen_end_ms: None,
        };
        Own { run: Some(run), strays: false }
    }

    fn view(owner: Option<Owner>, ever_titled: bool, voided: bool, pinned_until_ms: Option<i64>) -> View {
        View { last_number: 3, ever_titled, owner, own: own(voided), pinned_until_ms }
    }

    #[rstest]
    #[case::the_other_owns(view(owner("b"), true, false, None), Ok(()))]
    #[case::a_pin_has_expired(view(owner("b"), true, false, Some(1_000)), Ok(()))]
    #[case::a_pin(view(owner("b"), true, false, Some(1_001)), Err(Refused::Pinned { for_ms: 1 }))]
    #[case::it_owns(view(owner("a"), true, false, None), Err(Refused::OwnIsNewest))]
    #[case::it_owns_and_a_late_void_names_its_run(view(owner("a"), true, true, None), Err(Refused::OwnIsNewest))]
    #[case::no_term_is_valid(view(None, true, true, None), Err(Refused::NoProof))]
    #[case::no_term_at_all(view(None, false, false, None), Err(Refused::NoProof))]
    #[case::nothing_was_ever_complete(view(None, false, true, None), Ok(()))]
    #[case::nothing_was_ever_complete_but_pinned(view(None, false, true, Some(1_500)), Err(Refused::Pinned { for_ms: 500 }))]
    fn c1(#[case] view: View, #[case] expected: Result<(), Refused>) {
        let now = Now { wall_ms: 1_000, boot_ms: 0 };
        assert_eq!(may_delete(&"a".into(), &view, Rules::default(), now), expected);
    }

    #[test]
    fn a_folder_of_somebody_else_is_never_touched() {
        let nothing_known = View { own: Own { run: None, strays: true }, ..View::default() };
        let refused = may_delete(&"a".into(), &nothing_known, Rules::default(), Now::default());
        assert_eq!(refused, Err(Refused::NoProof));
    }
}
