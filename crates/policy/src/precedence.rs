//! The order of map entries as one number: tier, then priority, then deny over redirect over allow.

use crate::rule::{Action, Priority, Tier};

const PRIORITY_SHIFT: u32 = 8;
const TIER_SHIFT: u32 = PRIORITY_SHIFT + Priority::MAX.as_u32().count_ones();
const ALLOW: u32 = 0;
/// Room for redirects lies between allow and deny.
const DENY: u32 = 0xFF;

/// The precedence of an entry; the highest that matches a packet decides.
pub(crate) const fn precedence(tier: Tier, priority: Priority, action: Action) -> u32 {
    let tier = match tier {
        Tier::Admin => 3,
        Tier::Normal => 2,
        Tier::Baseline => 1,
        Tier::Default => 0,
    };
    let action = match action {
        Action::Allow => ALLOW,
        Action::Deny => DENY,
    };
    (tier << TIER_SHIFT) | ((Priority::MAX.as_u32() - priority.as_u32()) << PRIORITY_SHIFT) | action
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
                expected.push(precedence(tier, priority, Action::Deny));
                expected.push(precedence(tier, priority, Action::Allow));
            }
        }
        assert!(expected.windows(2).all(|pair| pair[0] > pair[1]), "{expected:x?}");
        assert_eq!(Priority::new(Priority::MAX.as_u32() + 1), None);
        assert_eq!(Priority::new(u32::MAX), None);
    }
}
