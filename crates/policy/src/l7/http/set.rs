//! Many HTTP rules at once: the cost of a request hardly depends on how many there are.

use std::collections::HashMap;

use regex::{RegexSet, RegexSetBuilder};

use super::{Effects, HttpRequest, HttpRule, Secrets};
use crate::l7::Pattern;

/// How much memory the program of one automaton may take; patterns that need more get several.
const SET_PROGRAM_BYTES_MAX: usize = 10 << 20;
/// How many patterns one automaton may hold. With many more its states no longer fit into its cache, and it becomes
/// slower than several.
const SET_PATTERNS_MAX: usize = 500;

/// The union of rules, compiled.
#[derive(Clone, Debug, Default)]
pub struct HttpRuleSet {
    rules: Vec<Member>,
    methods: FieldSet,
    paths: FieldSet,
    hosts: FieldSet,
    /// The rules that wait for a pattern of the path; then, of those without, for one of the host; and the others.
    by_path: Vec<Vec<usize>>,
    by_host: Vec<Vec<usize>>,
    always: Vec<usize>,
}

/// A rule, with the numbers of its patterns.
#[derive(Clone, Debug)]
struct Member {
    rule: HttpRule,
    index: usize,
    method: Option<usize>,
    host: Option<usize>,
}

impl HttpRuleSet {
    /// Compiles rules, each with the number by which the caller knows it.
    pub fn new<'r>(rules: impl IntoIterator<Item = (&'r HttpRule, usize)>) -> Self {
        Self::with_limit(rules, SET_PROGRAM_BYTES_MAX)
    }

    pub(super) fn with_limit<'r>(
        rules: impl IntoIterator<Item = (&'r HttpRule, usize)>,
        bytes_max: usize,
    ) -> Self {
        let (mut methods, mut paths, mut hosts) =
            (Distinct::default(), Distinct::default(), Distinct::default());
        let mut set = Self::default();
        for (nth, (rule, index)) in rules.into_iter().enumerate() {
            let [method, path, host] =
                [(&mut methods, &rule.method), (&mut paths, &rule.path), (&mut hosts, &rule.host)]
                    .map(|(known, pattern)| pattern.as_ref().map(|pattern| known.number(pattern)));
            match (path, host) {
                (Some(path), _) => enlist(&mut set.by_path, path, nth),
                (None, Some(host)) => enlist(&mut set.by_host, host, nth),
                (None, None) => set.always.push(nth),
            }
            set.rules.push(Member { rule: rule.clone(), index, method, host });
        }
        set.methods = FieldSet::new(&methods.patterns, bytes_max);
        set.paths = FieldSet::new(&paths.patterns, bytes_max);
        set.hosts = FieldSet::new(&hosts.patterns, bytes_max);
        set
    }

    /// Whether there is no rule: nothing is allowed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// How many rules there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether a rule changes or reports what it allows. If not, the first match is as good as all of them.
    #[must_use]
    pub fn has_effects(&self) -> bool {
        self.rules.iter().any(|member| member.rule.headers.iter().any(|header| header.mismatch.is_some()))
    }

    /// The numbers of the rules that allow a request, in the order the rules were given.
    pub fn matching(&self, request: &HttpRequest<'_>, secrets: &dyn Secrets) -> impl Iterator<Item = usize> {
        self.matches(request, secrets).map(|(index, _)| index)
    }

    /// Like [`HttpRuleSet::matching`], with what each rule wants done. All judge the request as it came.
    pub fn matches(
        &self,
        request: &HttpRequest<'_>,
        secrets: &dyn Secrets,
    ) -> impl Iterator<Item = (usize, Effects)> {
        let methods = self.methods.matching(request.method);
        let hosts = self.hosts.matching(request.authority);
        let mut waiting = self.always.clone();
        for (lists, matched) in [(&self.by_path, &self.paths.matching(request.path)), (&self.by_host, &hosts)]
        {
            waiting.extend(matched.iter().filter_map(|pattern| lists.get(*pattern)).flatten());
        }
        waiting.sort_unstable();
        let is_in = |matched: &[usize], wanted: Option<usize>| {
            wanted.is_none_or(|wanted| matched.binary_search(&wanted).is_ok())
        };
        waiting.into_iter().filter_map(move |nth| {
            let member = self.rules.get(nth)?;
            let fields = is_in(&methods, member.method) && is_in(&hosts, member.host);
            let effects = if fields { member.rule.check_headers(request, secrets).ok() } else { None };
            effects.map(|effects| (member.index, effects))
        })
    }

    /// How many automata look at a path; none if all patterns are plain texts.
    #[cfg(test)]
    pub(super) const fn path_automata(&self) -> usize {
        self.paths.automata.len()
    }
}

/// Puts a rule on the list of its pattern.
fn enlist(lists: &mut Vec<Vec<usize>>, pattern: usize, rule: usize) {
    if lists.len() <= pattern {
        lists.resize(pattern + 1, Vec::new());
    }
    if let Some(list) = lists.get_mut(pattern) {
        list.push(rule);
    }
}

/// Patterns, each once.
#[derive(Default)]
struct Distinct {
    numbers: HashMap<String, usize>,
    patterns: Vec<Pattern>,
}

impl Distinct {
    fn number(&mut self, pattern: &Pattern) -> usize {
        *self.numbers.entry(pattern.as_str().to_owned()).or_insert_with(|| {
            self.patterns.push(pattern.clone());
            self.patterns.len() - 1
        })
    }
}

/// The patterns of one field, by number.
#[derive(Clone, Debug, Default)]
struct FieldSet {
    /// Different patterns may mean the same text.
    literals: HashMap<String, Vec<usize>>,
    automata: Vec<Automaton>,
}

/// Some patterns as one automaton.
#[derive(Clone, Debug)]
struct Automaton {
    program: Program,
    numbers: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Program {
    Together(RegexSet),
    /// The one pattern that does not even fit alone.
    Alone(Pattern),
}

impl FieldSet {
    fn new(patterns: &[Pattern], bytes_max: usize) -> Self {
        let mut set = Self::default();
        let mut others = Vec::new();
        for (number, pattern) in patterns.iter().enumerate() {
            match pattern.literal() {
                Some(text) => set.literals.entry(text.to_owned()).or_default().push(number),
                None => others.push((number, pattern)),
            }
        }
        for others in others.chunks(SET_PATTERNS_MAX) {
            set.add(others, bytes_max);
        }
        set
    }

    /// Compiles patterns together, or, where that takes too much memory, each half of them.
    fn add(&mut self, patterns: &[(usize, &Pattern)], bytes_max: usize) {
        if patterns.is_empty() {
            return;
        }
        let sources = patterns.iter().filter_map(|(_, pattern)| pattern.source());
        let numbers = || patterns.iter().map(|(number, _)| *number).collect();
        match (RegexSetBuilder::new(sources).size_limit(bytes_max).build(), patterns) {
            (Ok(set), _) => {
                self.automata.push(Automaton { program: Program::Together(set), numbers: numbers() });
            }
            (Err(_), [(_, pattern)]) => {
                let program = Program::Alone((*pattern).clone());
                self.automata.push(Automaton { program, numbers: numbers() });
            }
            (Err(_), _) => {
                let (first, second) = patterns.split_at(patterns.len() / 2);
                self.add(first, bytes_max);
                self.add(second, bytes_max);
            }
        }
    }

    /// The numbers of the patterns that match, in order.
    fn matching(&self, text: &str) -> Vec<usize> {
        let mut numbers = self.literals.get(text).cloned().unwrap_or_default();
        for automaton in &self.automata {
            match &automaton.program {
                Program::Together(set) => {
                    let found = set.matches(text);
                    numbers.extend(found.iter().filter_map(|nth| automaton.numbers.get(nth)));
                }
                Program::Alone(pattern) if pattern.matches(text) => numbers.extend(&automaton.numbers),
                Program::Alone(_) => {}
            }
        }
        numbers.sort_unstable();
        numbers
    }
}
