//! The order of map entries as one number: tier, then priority, then deny over redirect over allow over pass.

use crate::rule::{Priority, Tier};

const PRIORITY_SHIFT: u32 = 8;
const TIER_SHIFT: u32 = PRIORITY_SHIFT + Priority::MAX.as_u32().count_ones();

/// What an entry does, from the weakest to the strongest at one priority.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub(crate) enum Rank {
    Pass = 0,
    Allow = 1,
    Redirect = 0x80,
    Deny = 0xFF,
}

/// The precedence of an entry; the highest that matches a packet decides.
pub(crate) const fn precedence(tier: Tier, priority: Priority, rank: Rank) -> u32 {
    let tier = match tier {
        Tier::Admin => 3,
        Tier::Normal => 2,
        Tier::Baseline => 1,
        Tier::Default => 0,
    };
    (tier << TIER_SHIFT) | ((Priority::MAX.as_u32() - priority.as_u32()) << PRIORITY_SHIFT) | rank as u32
}

/// Whether two precedences differ in rank alone.
pub(crate) const fn same_priority(one: u32, other: u32) -> bool {
    one >> PRIORITY_SHIFT == other >> PRIORITY_SHIFT
}

/// Whether two precedences are of the same tier.
pub(crate) const fn same_tier(one: u32, other: u32) -> bool {
    one >> TIER_SHIFT == other >> TIER_SHIFT
}

/// Whether a precedence is one of administrators' rules, which decide before everybody else.
pub(crate) const fn is_admin(one: u32) -> bool {
    same_tier(one, precedence(Tier::Admin, Priority::MAX, Rank::Pass))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_total_and_never_overflows() {
        let tiers = [Tier::Admin, Tier::Normal, Tier::Baseline, Tier::Default];
        let numbers =
            [0, 1, 1_000, 65_534, 65_535, 65_536, Priority::MAX.as_u32() - 1, Priority::MAX.as_u32()];
        let mut expected = Vec::new();
        for tier in tiers {
            for number in numbers {
                let priority = Priority::new(number).unwrap();
                for rank in [Rank::Deny, Rank::Redirect, Rank::Allow, Rank::Pass] {
                    expected.push(precedence(tier, priority, rank));
                }
            }
        }
        assert!(expected.windows(2).all(|pair| pair[0] > pair[1]), "{expected:x?}");
        assert_eq!(Priority::new(Priority::MAX.as_u32() + 1), None);
        assert_eq!(Priority::new(u32::MAX), None);
    }

    #[test]
    fn neighbours() {
        let number = |tier, priority, rank| precedence(tier, Priority::new(priority).unwrap(), rank);
        let allow = number(Tier::Normal, 5, Rank::Allow);
        assert!(same_priority(allow, number(Tier::Normal, 5, Rank::Deny)));
        assert!(!same_priority(allow, number(Tier::Normal, 6, Rank::Allow)));
        assert!(same_tier(allow, number(Tier::Normal, 6, Rank::Pass)));
        assert!(!same_tier(allow, number(Tier::Baseline, 5, Rank::Allow)));
    }
}
