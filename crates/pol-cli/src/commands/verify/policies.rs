//! The policy that a verification goes by: the one that was asked for, and what flags put in its place.

use pol_core::policy::{Comparison, Policy, SegmentRule};

use crate::args::VerifyArgs;
use crate::commands::policy;
use crate::error::CliError;

/// What is demanded of a proof, and of those that it goes back to.
pub(super) struct Policies {
    /// The policy, with what the flags put in its place.
    pub(super) effective: Policy,
    /// Of prior proofs: flags that make this audit cheaper or kinder say nothing about them.
    pub(super) of_priors: Policy,
    /// The flags that changed something, by their names.
    pub(super) changes: Vec<&'static str>,
}

impl Policies {
    /// As the flags say; see [`VerifyArgs`].
    pub(super) fn of(args: &VerifyArgs) -> Result<Self, CliError> {
        let given = policy(&args.policy)?;
        let mut policies = Self {
            effective: given.clone(),
            of_priors: given.clone(),
            changes: Vec::new(),
        };
        if args.sample.is_some() || args.top.is_some() {
            // What is replayed beside every sample stays.
            let drawn = SegmentRule {
                all: false,
                sample: args.sample,
                top: args.top,
                catch: None,
                ..given.segments
            };
            if given.segments != drawn {
                policies.effective.segments = drawn;
                for (flag, given) in [
                    ("sample", args.sample.is_some()),
                    ("top", args.top.is_some()),
                ] {
                    if given {
                        policies.note(flag);
                    }
                }
            }
        }
        if args.all && !given.segments.is_all() {
            policies.change("all", |policy| &mut policy.segments.all, true);
        }
        if args.max_steps.is_some() {
            let cap = args.max_steps;
            policies.of_priors.segments.max_steps = cap;
            policies.change("max-steps", |policy| &mut policy.segments.max_steps, cap);
        }
        if let Some(tolerance) = args.tolerance {
            let comparison = Comparison::within(tolerance);
            policies.change("tolerance", |policy| &mut policy.comparison, comparison);
        }
        if given.start.max_depth() < args.prior.len() as u64 {
            return Err(CliError::Usage(format!(
                "the policy `{}` admits chains of at most {} prior proofs",
                given.name,
                given.start.max_depth()
            )));
        }
        Ok(policies)
    }

    /// Puts what a flag says in the place of what the policy says, which its name states from now on.
    fn change<T: PartialEq>(
        &mut self,
        flag: &'static str,
        of: impl Fn(&mut Policy) -> &mut T,
        value: T,
    ) {
        let field = of(&mut self.effective);
        if *field != value {
            *field = value;
            self.note(flag);
        }
    }

    fn note(&mut self, flag: &'static str) {
        self.effective.note_change(&format!("--{flag}"));
        self.changes.push(flag);
    }
}
