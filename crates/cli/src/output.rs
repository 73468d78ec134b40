//! Where the output goes and how it looks: colour only for people, JSON and YAML for programs.

use std::io::{BufWriter, IsTerminal, Write};

use serde::Serialize;

use crate::args::{Color, Format};
use crate::failure::Failure;
use crate::table::Table;

/// Our standard output or error.
pub(crate) struct Output {
    writer: Box<dyn Write>,
    colored: bool,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("colored", &self.colored).finish_non_exhaustive()
    }
}

impl Output {
    /// Standard output.
    pub(crate) fn stdout(color: Color) -> Self {
        let stdout = std::io::stdout();
        let colored = is_colored(color, stdout.is_terminal());
        Self { writer: Box::new(BufWriter::new(stdout)), colored }
    }

    /// Standard error.
    pub(crate) fn stderr(color: Color) -> Self {
        let stderr = std::io::stderr();
        let colored = is_colored(color, stderr.is_terminal());
        Self { writer: Box::new(stderr), colored }
    }

    /// What went well.
    pub(crate) fn good(&self, text: &str) -> String {
        self.paint("32", text)
    }

    /// What was denied or is broken.
    pub(crate) fn bad(&self, text: &str) -> String {
        self.paint("31", text)
    }

    /// What needs a look.
    pub(crate) fn warn(&self, text: &str) -> String {
        self.paint("33", text)
    }

    /// What is less important.
    pub(crate) fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    /// A heading.
    pub(crate) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colored { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Prints `value` as JSON or YAML, or else the table that `table` makes.
    pub(crate) fn print<T: Serialize>(
        &mut self,
        format: Format,
        value: &T,
        table: impl FnOnce(&Self) -> Table,
    ) -> Result<(), Failure> {
        if format == Format::Table {
            let table = table(self);
            write!(self, "{table}")?;
            return Ok(());
        }
        self.print_value(format, value)
    }

    /// Prints `value` as YAML, or as JSON if that is asked for.
    pub(crate) fn print_value<T: Serialize>(&mut self, format: Format, value: &T) -> Result<(), Failure> {
        let text = match format {
            Format::Json => serde_json::to_string_pretty(value)
                .map_err(|error| Failure::error(format!("cannot write this as JSON: {error}")))?,
            Format::Yaml | Format::Table => serde_saphyr::to_string(value)
                .map_err(|error| Failure::error(format!("cannot write this as YAML: {error}")))?,
        };
        writeln!(self, "{}", text.trim_end())?;
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}

fn is_colored(color: Color, is_terminal: bool) -> bool {
    let variable = |name: &str| std::env::var_os(name).unwrap_or_default();
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => is_terminal && variable("NO_COLOR").is_empty() && variable("TERM") != "dumb",
    }
}
