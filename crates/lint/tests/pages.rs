//! The pages of `docs/lint`: every rule has one, and its examples do what it says.

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use sluice_api::read_manifests;
    use sluice_lint::{Document, Options, RULES, Rule, lint};

    /// Every small example leaves a direction open.
    const IN_EVERY_EXAMPLE: &str = "SL025";

    fn folder() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lint")
    }

    /// The examples of a page: what is wrong, and how it is mended.
    fn examples(rule: &Rule) -> (&str, &str) {
        let blocks: Vec<&str> =
            rule.page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        let [bad, good] = blocks.as_slice() else {
            panic!("{}: two blocks, not {}", rule.code, blocks.len())
        };
        (bad, good)
    }

    fn codes(text: &str, options: &Options) -> BTreeSet<&'static str> {
        let documents: Vec<Document> = read_manifests(text)
            .into_iter()
            .map(|manifest| Document { file: "page".to_owned(), manifest })
            .collect();
        lint(&documents, options).into_iter().map(|finding| finding.code).collect()
    }

    fn options(rule: &Rule) -> Options {
        let small = if rule.code == "SL060" { 10 } else { sluice_lint::MAP_BUDGET };
        Options { portable: rule.code.starts_with("SL08"), map_budget: small, ..Options::default() }
    }

    #[test]
    fn what_is_wrong_in_an_example_is_found_and_nothing_else() {
        for rule in RULES {
            let mut found = codes(examples(rule).0, &options(rule));
            if rule.code != IN_EVERY_EXAMPLE {
                found.remove(IN_EVERY_EXAMPLE);
            }
            assert_eq!(found, BTreeSet::from([rule.code]), "the first example of {}", rule.code);
        }
    }

    #[test]
    fn what_is_mended_is_clean() {
        for rule in RULES {
            let mut found = codes(examples(rule).1, &options(rule));
            if rule.code != IN_EVERY_EXAMPLE {
                found.remove(IN_EVERY_EXAMPLE);
            }
            assert_eq!(found, BTreeSet::new(), "the second example of {}", rule.code);
        }
    }

    #[test]
    fn pages_open_with_code_name_severity_and_summary() {
        for rule in RULES {
            let head = format!(
                "# {}: {}\n\nSeverity: {}. Finds {}.\n\n",
                rule.code, rule.name, rule.severity, rule.summary
            );
            assert!(rule.page.starts_with(&head), "{}: {head}", rule.code);
        }
    }

    #[test]
    fn codes_are_unique_and_in_order() {
        let codes: Vec<&str> = RULES.iter().map(|rule| rule.code).collect();
        assert!(codes.is_sorted(), "{codes:?}");
        assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len());
        let names: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
        assert_eq!(names.len(), RULES.len());
        for rule in RULES {
            assert_eq!(sluice_lint::find(&rule.code.to_lowercase()), Some(rule));
            assert_eq!(sluice_lint::find(rule.name), Some(rule));
        }
    }

    #[test]
    fn the_index_lists_every_rule() {
        let index = fs::read_to_string(folder().join("README.md")).unwrap();
        let listed: Vec<&str> = index.lines().filter(|line| line.starts_with("| [SL")).collect();
        let wanted: Vec<String> = RULES
            .iter()
            .map(|rule| {
                let (code, name) = (rule.code, rule.name);
                format!("| [{code}]({code}.md) | {name} | {} | {} |", rule.severity, rule.summary)
            })
            .collect();
        assert_eq!(listed, wanted);
    }

    #[test]
    fn no_page_is_left_over() {
        let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
        let pages: BTreeSet<String> = files.map(|name| name.to_string_lossy().into_owned()).collect();
        let wanted = RULES.iter().map(|rule| format!("{}.md", rule.code)).chain(["README.md".to_owned()]);
        assert_eq!(pages, wanted.collect());
    }
}
