//! Who can reach whom: groups of participants that no policy can tell apart, and what passes between each two.

use crate::{
    end::UnknownEnd,
    reach::{Judges, Reach},
};

/// Participants that are alike for every policy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Group {
    /// By name, in order. Never empty.
    pub members: Vec<String>,
}

impl Group {
    /// The first member, and how many more there are.
    #[must_use]
    pub fn label(&self) -> String {
        let first = self.first();
        match self.members.len() {
            0 | 1 => first.to_owned(),
            several => format!("{first} +{}", several - 1),
        }
    }

    pub(crate) fn first(&self) -> &str {
        self.members.first().map_or("", String::as_str)
    }
}

/// What passes between groups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Matrix {
    /// Rows, who sends, and columns, who receives.
    pub groups: Vec<Group>,
    /// A row for each sender, in it a cell for each receiver.
    pub cells: Vec<Vec<Reach>>,
}

impl Judges<'_> {
    /// What passes between the participants that `wanted` names. Between members of one group it is asked of two
    /// different ones if there are two; of a group of one the cell says that it reaches itself.
    ///
    /// # Errors
    /// Nobody is called one of the names.
    pub fn matrix(&self, wanted: &[String]) -> Result<Matrix, UnknownEnd> {
        let groups = self.groups(wanted);
        let cell = |from: &Group, to: &Group| {
            let receiver = if from == to { to.members.get(1) } else { None };
            self.reach(from.first(), receiver.map_or(to.first(), String::as_str))
        };
        let row = |from: &Group| groups.iter().map(|to| cell(from, to)).collect::<Result<Vec<_>, _>>();
        let cells = groups.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        Ok(Matrix { groups, cells })
    }

    /// Those who are alike stand together, at the place of the first of them.
    pub(crate) fn groups(&self, wanted: &[String]) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for name in wanted {
            match groups.iter_mut().find(|group| self.are_alike(group.first(), name)) {
                Some(group) => group.members.push(name.clone()),
                None => groups.push(Group { members: vec![name.clone()] }),
            }
        }
        groups
    }
}
