//! However a policy is written, its values and comments come through, and a second pass finds nothing to do.

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    const HEAD: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n";
    /// Keys and values as they may be written, some of them with traps.
    const KEYS: &[&str] = &[
        "metadata",
        "spec",
        "ingress",
        "egress",
        "matchLabels",
        "labels",
        "toPorts",
        "kafka",
        "apiVersion2",
        "name",
        "\"a: b\"",
        "'it''s'",
        "\"\"",
        "y",
        "80",
        "app.kubernetes.io/name",
        "k8s:app",
        "l7",
        "rules",
        "\"#\"",
        "é",
    ];
    const VALUES: &[&str] = &[
        "a",
        "80",
        "\"80\"",
        "'80'",
        "",
        "~",
        "null",
        "\"\"",
        "true",
        "\"true\"",
        "yes",
        "1.5",
        "-1",
        "10.0.0.0/8",
        "\"::/0\"",
        "'/a\\d+/.*'",
        "\"a\\nb\"",
        "\"tab\\t\\\"quoted\\\"\"",
        "it's",
        "a#b",
        "\"a #b\"",
        "'- a'",
        "\"{}\"",
        "{}",
        "[]",
        "x y",
        "^/api$",
        "\"\\u200b\"",
        "ünï",
        "\"\\x07\"",
        "\" \"",
    ];
    const BLOCKS: &[&[&str]] = &[
        &["|", "one", "", "  two", "# three"],
        &["|-", "one: 1"],
        &[">", "one", "two", "", "three"],
        &[">-", "- one", "two"],
    ];

    #[derive(Clone, Debug)]
    enum Value {
        Inline(usize),
        Block(usize),
        List(Vec<Self>),
        Map(Vec<(usize, Self)>),
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            6 => (0..VALUES.len()).prop_map(Value::Inline),
            1 => (0..BLOCKS.len()).prop_map(Value::Block),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            let key = 0..KEYS.len();
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..5).prop_map(Value::List),
                prop::collection::btree_map(key, inner, 1..6)
                    .prop_map(|fields| fields.into_iter().collect::<Vec<_>>())
                    .prop_shuffle()
                    .prop_map(Value::Map),
            ]
        })
    }

    /// Writes a value in any of the many ways that YAML has; every choice takes a byte.
    struct Writer {
        text: String,
        choices: std::iter::Cycle<std::vec::IntoIter<u8>>,
        comments: usize,
    }

    impl Writer {
        fn one_in(&mut self, chances: u8) -> bool {
            self.choices.next().unwrap().is_multiple_of(chances)
        }

        fn comment(&mut self) -> String {
            self.comments += 1;
            format!("#{}c{}", if self.one_in(2) { " " } else { "" }, self.comments)
        }

        /// Ends a line, perhaps with a comment.
        fn end_line(&mut self) {
            if self.one_in(5) {
                let comment = self.comment();
                self.text += &format!(" {comment}");
            }
            self.text.push('\n');
        }

        /// Empty lines and comments between two lines.
        fn between(&mut self, indent: usize) {
            while self.one_in(4) {
                if self.one_in(2) {
                    self.text.push('\n');
                } else {
                    let comment = self.comment();
                    // Two deeper, it could be the last line of a text.
                    let deeper = usize::from(self.one_in(3));
                    self.text += &format!("{}{comment}\n", " ".repeat(indent + deeper));
                }
            }
        }

        fn flow(&mut self, value: &Value) {
            match value {
                Value::Inline(nth) if VALUES[*nth].is_empty() => self.text += "null",
                Value::Inline(nth) => self.text += VALUES[*nth],
                Value::Block(_) => self.text += "\"block\"",
                Value::List(items) => {
                    self.text.push('[');
                    for item in items {
                        self.gap();
                        self.flow(item);
                        self.text += ", ";
                    }
                    self.gap();
                    self.text.push(']');
                }
                Value::Map(fields) => {
                    self.text.push('{');
                    for (key, value) in fields {
                        self.gap();
                        self.text += KEYS[*key];
                        self.text += ": ";
                        self.flow(value);
                        self.text += ", ";
                    }
                    self.gap();
                    self.text.push('}');
                }
            }
        }

        /// Perhaps a line end inside of a flow collection.
        fn gap(&mut self) {
            if self.one_in(6) {
                self.end_line();
                if self.one_in(3) {
                    let comment = self.comment();
                    self.text += &format!("      {comment}\n");
                }
                self.text += &" ".repeat(30);
            }
        }

        /// Writes what stands behind a colon or a dash at this indentation.
        fn value(&mut self, value: &Value, indent: usize, behind_dash: bool) {
            match value {
                Value::Inline(nth) => {
                    self.text += &format!(" {}", VALUES[*nth]);
                    self.end_line();
                }
                Value::Block(nth) => {
                    self.text += &format!(" {}", BLOCKS[*nth][0]);
                    self.end_line();
                    let inside = indent + if self.one_in(2) { 2 } else { 5 };
                    for line in &BLOCKS[*nth][1..] {
                        self.text += &format!("{}{line}\n", " ".repeat(inside));
                    }
                }
                Value::List(_) | Value::Map(_) if self.one_in(3) => {
                    self.text.push(' ');
                    self.flow(value);
                    self.end_line();
                }
                Value::List(items) => {
                    let dedented = usize::from(!behind_dash && self.one_in(2)) * 2;
                    self.lines(indent + 2 - dedented, behind_dash, items, |writer, item, indent| {
                        writer.text.push('-');
                        writer.value(item, indent, true);
                    });
                }
                Value::Map(fields) => {
                    self.lines(indent + 2, behind_dash, fields, |writer, (key, value), indent| {
                        writer.text += &format!("{}:", KEYS[*key]);
                        writer.value(value, indent, false);
                    });
                }
            }
        }

        fn lines<T>(
            &mut self,
            indent: usize,
            behind_dash: bool,
            items: &[T],
            write: impl Fn(&mut Self, &T, usize),
        ) {
            for (nth, item) in items.iter().enumerate() {
                if nth == 0 && behind_dash && !self.one_in(4) {
                    self.text.push(' ');
                } else {
                    if nth == 0 {
                        self.end_line();
                    }
                    self.between(indent);
                    self.text += &" ".repeat(indent);
                }
                write(self, item, indent);
            }
            self.between(indent);
        }
    }

    fn read(text: &str) -> serde_json::Value {
        let mut trees = sluice_api::read_trees(text);
        assert_eq!(trees.len(), 1, "{text}");
        trees.remove(0).unwrap_or_else(|error| panic!("{error}\n{text}")).to_json()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn values_and_comments_come_through(
            fields in prop::collection::btree_map(0..KEYS.len(), values(), 1..5),
            choices in prop::collection::vec(any::<u8>(), 20..200),
        ) {
            let choices = choices.into_iter().endless();
            let mut writer = Writer { text: String::new(), choices, comments: 0 };
            writer.between(0);
            writer.text += HEAD;
            for (key, value) in &fields {
                writer.between(0);
                writer.text += &format!("{}:", KEYS[*key]);
                writer.value(value, 0, false);
            }
            writer.between(0);
            let text = writer.text;
            let value = read(&text);
            let formatted = sluice_format::format(&text);
            prop_assert!(formatted.is_ok(), "{}\n{text}", formatted.unwrap_err());
            let formatted = formatted.unwrap();
            prop_assert_eq!(read(&formatted), value, "{}\n{}", text, formatted);
            for nth in 1..=writer.comments {
                let found = formatted.lines().filter(|line| {
                    line.ends_with(&format!("# c{nth}")) || line.ends_with(&format!("#c{nth}"))
                });
                prop_assert_eq!(found.count(), 1, "comment {}\n{}\n{}", nth, text, formatted);
            }
            prop_assert_eq!(sluice_format::format(&formatted), Ok(formatted.clone()));
        }
    }

    trait Endless {
        fn endless(self) -> std::iter::Cycle<std::vec::IntoIter<u8>>;
    }

    impl Endless for std::vec::IntoIter<u8> {
        /// Loops over the choices; one that ends every loop of `between` is always among them.
        fn endless(self) -> std::iter::Cycle<Self> {
            self.chain([1, 7, 11]).collect::<Vec<u8>>().into_iter().cycle()
        }
    }
}
