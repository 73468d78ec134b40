//! Two texts, compared line by line, as `diff -u` prints it.

use std::io::Write;

use crate::failure::Failure;
use crate::output::Output;

/// How many equal lines are shown around what differs.
const CONTEXT: usize = 3;
/// Largest table of pairs of lines that is filled; what is larger is shown as replaced.
const PAIRS_MAX: usize = 4_000_000;

/// One line of the comparison, with how many lines of both texts come before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Line<'a> {
    kind: Kind,
    text: &'a str,
    old: usize,
    new: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Same,
    Old,
    New,
}

/// Prints what differs; nothing if nothing does.
pub(super) fn print(name: &str, old: &str, new: &str, output: &mut Output) -> Result<(), Failure> {
    let lines = compare(&split(old), &split(new));
    let hunks = hunks(&lines);
    if hunks.is_empty() {
        return Ok(());
    }
    let (before, after) =
        (output.bold(&format!("--- {name}")), output.bold(&format!("+++ {name} formatted")));
    writeln!(output, "{before}\n{after}")?;
    for hunk in hunks {
        writeln!(output, "{}", output.dim(&header(hunk)))?;
        for line in hunk {
            let text = line.text.trim_end_matches('\n');
            let shown = match line.kind {
                Kind::Same => format!(" {text}"),
                Kind::Old => output.bad(&format!("-{text}")),
                Kind::New => output.good(&format!("+{text}")),
            };
            writeln!(output, "{shown}")?;
            if !line.text.ends_with('\n') {
                writeln!(output, "\\ No newline at end of file")?;
            }
        }
    }
    Ok(())
}

fn split(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// `@@ -FIRST,COUNT +FIRST,COUNT @@`
fn header(hunk: &[Line<'_>]) -> String {
    let count = |kind| hunk.iter().filter(|line| line.kind == kind).count();
    let same = count(Kind::Same);
    let range = |before: usize, count: usize| {
        // A range without lines is named by the line before it.
        let first = if count == 0 { before } else { before + 1 };
        format!("{first},{count}")
    };
    let (old, new) = hunk.first().map_or((0, 0), |line| (line.old, line.new));
    format!("@@ -{} +{} @@", range(old, same + count(Kind::Old)), range(new, same + count(Kind::New)))
}

/// The stretches that differ, with the lines around them.
fn hunks<'s, 'a>(lines: &'s [Line<'a>]) -> Vec<&'s [Line<'a>]> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (nth, _) in lines.iter().enumerate().filter(|(_, line)| line.kind != Kind::Same) {
        let (start, end) = (nth.saturating_sub(CONTEXT), (nth + CONTEXT + 1).min(lines.len()));
        match ranges.last_mut() {
            Some((_, last)) if *last >= start => *last = end,
            Some(_) | None => ranges.push((start, end)),
        }
    }
    ranges.into_iter().filter_map(|(start, end)| lines.get(start..end)).collect()
}

/// The shortest list of lines to take out and to put in.
fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let prefix = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (old.get(prefix..).unwrap_or_default(), new.get(prefix..).unwrap_or_default());
    let suffix = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let middle = |rest: &[&'a str]| rest.get(..rest.len() - suffix).unwrap_or_default().to_vec();
    let (old_middle, new_middle) = (middle(old_rest), middle(new_rest));

    let mut lines = Lines { lines: Vec::new(), old: 0, new: 0 };
    old.iter().take(prefix).for_each(|text| lines.push(Kind::Same, text));
    let common = common(&old_middle, &new_middle);
    let mut at = (0, 0);
    for (old_nth, new_nth) in common.into_iter().chain([(old_middle.len(), new_middle.len())]) {
        old_middle.get(at.0..old_nth).into_iter().flatten().for_each(|text| lines.push(Kind::Old, text));
        new_middle.get(at.1..new_nth).into_iter().flatten().for_each(|text| lines.push(Kind::New, text));
        old_middle.get(old_nth).into_iter().for_each(|text| lines.push(Kind::Same, text));
        at = (old_nth + 1, new_nth + 1);
    }
    old_rest.iter().skip(old_middle.len()).for_each(|text| lines.push(Kind::Same, text));
    lines.lines
}

struct Lines<'a> {
    lines: Vec<Line<'a>>,
    old: usize,
    new: usize,
}

impl<'a> Lines<'a> {
    fn push(&mut self, kind: Kind, text: &'a str) {
        self.lines.push(Line { kind, text, old: self.old, new: self.new });
        self.old += usize::from(kind != Kind::New);
        self.new += usize::from(kind != Kind::Old);
    }
}

/// The pairs of equal lines of a longest common subsequence.
fn common(old: &[&str], new: &[&str]) -> Vec<(usize, usize)> {
    let width = new.len() + 1;
    if (old.len() + 1).saturating_mul(width) > PAIRS_MAX {
        return Vec::new();
    }
    // How many lines the rests of both texts have in common.
    let mut table = vec![0_u32; (old.len() + 1) * width];
    let at =
        |table: &[u32], old: usize, new: usize| table.get(old * width + new).copied().unwrap_or_default();
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            let longest = if a == b {
                at(&table, i + 1, j + 1) + 1
            } else {
                at(&table, i + 1, j).max(at(&table, i, j + 1))
            };
            if let Some(cell) = table.get_mut(i * width + j) {
                *cell = longest;
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut pairs = Vec::new();
    while let (Some(a), Some(b)) = (old.get(i), new.get(j)) {
        if a == b {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if at(&table, i + 1, j) >= at(&table, i, j + 1) {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(old: &str, new: &str) -> String {
        let lines = compare(&split(old), &split(new));
        let sign = |line: &Line<'_>| match line.kind {
            Kind::Same => ' ',
            Kind::Old => '-',
            Kind::New => '+',
        };
        let hunk = |hunk: &&[Line<'_>]| {
            let lines: String = hunk.iter().map(|line| format!("{}{}", sign(line), line.text)).collect();
            format!("{}\n{lines}", header(hunk))
        };
        hunks(&lines).iter().map(hunk).collect()
    }

    #[test]
    fn hunks_are_those_of_diff() {
        let cases = [
            ("nothing", "a\nb\n", "a\nb\n", ""),
            ("one line", "a\nb\nc\n", "a\nx\nc\n", "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n"),
            ("all new", "", "a\n", "@@ -0,0 +1,1 @@\n+a\n"),
            ("all gone", "a\n", "", "@@ -1,1 +0,0 @@\n-a\n"),
            (
                "far apart",
                "1\n2\n3\n4\n5\n6\n7\n8\n9\n",
                "0\n1\n2\n3\n4\n5\n6\n7\n8\n",
                "@@ -1,3 +1,4 @@\n+0\n 1\n 2\n 3\n@@ -6,4 +7,3 @@\n 6\n 7\n 8\n-9\n",
            ),
            ("moved", "a\nb\nc\n", "b\nc\na\n", "@@ -1,3 +1,3 @@\n-a\n b\n c\n+a\n"),
        ];
        for (name, old, new, want) in cases {
            assert_eq!(shown(old, new), want, "{name}");
        }
    }

    #[test]
    fn what_is_too_large_to_compare_is_replaced() {
        let text = |line: &str| format!("{line}\n").repeat(3_000);
        let (old, new) = (text("a") + "b\n" + &text("c"), text("d") + "b\n" + &text("e"));
        let lines = compare(&split(&old), &split(&new));
        assert_eq!(lines.iter().filter(|line| line.kind == Kind::Same).count(), 0);
        assert_eq!(lines.len(), 2 * 6_001);
    }
}
