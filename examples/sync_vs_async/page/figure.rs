//! What every picture of the page has: panels, a legend, a text twin, a command.

use std::fmt::Write;

use super::svg::{escape, mark};
use crate::labels::{Label, Lang, fill, server};
use crate::notes::{Note, Topic};
use crate::run::Run;

/// A picture with everything that stands beside it.
#[derive(Default)]
pub(super) struct Figure {
    pub(super) id: &'static str,
    pub(super) title: String,
    /// How to read it.
    pub(super) lead: String,
    pub(super) panels: Vec<Panel>,
    /// Servers that the legend explains.
    pub(super) servers: Vec<String>,
    /// Other classes that the legend explains.
    pub(super) key: Vec<(&'static str, &'static str)>,
    pub(super) topics: &'static [Topic],
    /// Options that make the losing side lose, and who that is; None: nobody does.
    pub(super) command: &'static str,
    pub(super) loser: Option<Label>,
    pub(super) twin: Twin,
    /// HTML behind the panels.
    pub(super) more: String,
}

pub(super) struct Panel {
    pub(super) title: String,
    pub(super) svg: String,
}

/// The same as text.
#[derive(Default)]
pub(super) struct Twin {
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// What is drawn, and in which language.
#[derive(Clone, Copy)]
pub(super) struct Draw<'a> {
    pub(super) run: &'a Run,
    pub(super) lang: Lang,
}

impl Draw<'_> {
    pub(super) fn text(&self, label: Label) -> &'static str {
        label.text(self.lang)
    }

    pub(super) fn fill(&self, label: Label, values: &[(&str, String)]) -> String {
        fill(label.text(self.lang), values)
    }

    pub(super) fn server(&self, name: &str) -> &'static str {
        server(name, self.lang)
    }

    pub(super) fn head(&self, labels: &[Label]) -> Vec<String> {
        labels.iter().map(|label| self.text(*label).to_owned()).collect()
    }
}

impl Figure {
    pub(super) fn html(&self, draw: &Draw<'_>, notes: &[Note]) -> String {
        let mut out = String::new();
        let (id, title) = (self.id, escape(&self.title));
        let _ = write!(out, "<section id=\"{id}\"><h2><a href=\"#{id}\">{title}</a></h2>");
        let _ = write!(out, "<p class=\"lead\">{}</p>", escape(&self.lead));
        out.push_str("<figure><div class=\"panels\">");
        for panel in &self.panels {
            let title = escape(&panel.title);
            let _ = write!(out, "<div class=\"panel\"><h3>{title}</h3>{}</div>", panel.svg);
        }
        out.push_str("</div>");
        self.legend(&mut out, draw);
        out.push_str("</figure>");
        out.push_str(&self.more);
        let about = notes.iter().filter(|note| self.topics.contains(&note.topic));
        let about: Vec<_> = about.map(|note| format!("<li>{}</li>", escape(&note.text))).collect();
        if !about.is_empty() {
            let _ = write!(out, "<ul class=\"notes\">{}</ul>", about.concat());
        }
        if !self.command.is_empty() {
            let line = format!("cargo run --release --example sync_vs_async -- {}", self.command);
            // A line breaks between words, not within one.
            let word = |word| format!("<span>{}</span>", escape(word));
            let words: Vec<_> = line.split(' ').map(word).collect();
            let _ = write!(
                out,
                "<p class=\"try\">{} <code>{}</code></p>",
                escape(draw.text(self.loser.unwrap_or(Label::TryIt))),
                words.join(" "),
            );
        }
        self.twin.html(&mut out, draw.text(Label::AsTable));
        out.push_str("</section>\n");
        out
    }

    fn legend(&self, out: &mut String, draw: &Draw<'_>) {
        if self.servers.is_empty() && self.key.is_empty() {
            return;
        }
        out.push_str("<figcaption class=\"legend\">");
        for name in &self.servers {
            let mut sample = String::new();
            let _ = write!(sample, "<path d=\"M0 8H34\" class=\"l s-{name}\"/>");
            mark(&mut sample, 17.0, 8.0, name);
            let called = escape(draw.server(name));
            let _ = write!(
                out,
                "<span><svg viewBox=\"0 0 34 16\" width=\"34\" height=\"16\" aria-hidden=\"true\">\
                 {sample}</svg>{called}</span>"
            );
        }
        for (class, called) in &self.key {
            let called = escape(called);
            let _ = write!(
                out,
                "<span><svg viewBox=\"0 0 34 16\" width=\"34\" height=\"16\" aria-hidden=\"true\">\
                 {}</svg>{called}</span>",
                key_sample(class)
            );
        }
        out.push_str("</figcaption>");
    }
}

/// How a class looks in the legend: spans of a lane as such, everything else as a line.
fn key_sample(class: &str) -> String {
    match class.strip_prefix("lane-") {
        Some(doing) => super::lanes::span(2.0, 30.0, 2.0, doing),
        None => match class.strip_prefix("fill-") {
            Some(_) => {
                format!("<rect x=\"2\" y=\"2\" width=\"30\" height=\"12\" class=\"{class}\"/>")
            }
            None => format!("<path d=\"M0 8H34\" class=\"{class}\"/>"),
        },
    }
}

impl Twin {
    fn html(&self, out: &mut String, summary: &str) {
        if self.rows.is_empty() {
            return;
        }
        let _ = write!(
            out,
            "<details><summary>{}</summary><div class=\"wide\"><table><thead><tr>",
            escape(summary)
        );
        for cell in &self.head {
            let _ = write!(out, "<th scope=\"col\">{}</th>", escape(cell));
        }
        out.push_str("</tr></thead><tbody>");
        for row in &self.rows {
            out.push_str("<tr>");
            for (at, cell) in row.iter().enumerate() {
                let cell = escape(cell);
                let _ = if at == 0 {
                    write!(out, "<th scope=\"row\">{cell}</th>")
                } else {
                    write!(out, "<td>{cell}</td>")
                };
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table></div></details>");
    }
}
