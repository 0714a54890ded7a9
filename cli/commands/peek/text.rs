//! A [`Page`] on a terminal: images as half blocks, tokens coloured by whether they carry loss.
//!
//! The data is hostile: everything that comes from it goes through [`visible`], since colours are written as they are.

use super::row::{Image, Page, Row, Token};
use crate::ui::visible;
use std::fmt::Write;

/// Terminal cells an image is wide. A cell is two pixels high.
const IMAGE_COLUMNS: usize = 44;

/// What the terminal can show.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    None,
    /// The 256 colours of xterm.
    Few,
    /// 24 bits.
    True,
}

/// The whole page.
pub fn render(page: &Page, colours: Colours) -> String {
    let mut out = format!("{} ({}): {}\n", page.stage, page.kind, page.range());
    for row in &page.rows {
        out.push('\n');
        out += &render_row(row, colours);
    }
    out
}

fn render_row(row: &Row, colours: Colours) -> String {
    let mut out = style(&format!("row {}  {}", row.position, visible(&row.id)), "1", colours);
    out.push('\n');
    if let Some(reject) = &row.reject {
        out += &style(&format!("rejected: {}", visible(reject)), "31", colours);
        out.push('\n');
    }
    for image in &row.images {
        out += &render_image(image, colours);
    }
    for message in &row.messages {
        let role = style(&format!("{}:", visible(&message.role)), "36", colours);
        let _ = writeln!(out, "{role} {}", visible(&message.content));
    }
    if !row.segments.is_empty() {
        let pieces = row.segments.iter().map(|segment| (visible(&segment.text).into_owned(), segment.train));
        out += &marked(pieces, "", colours);
    }
    if !row.tokens.is_empty() {
        let trained: usize = row.tokens.iter().filter(|token| token.train).map(length).sum();
        let all: usize = row.tokens.iter().map(length).sum();
        out += &marked(row.tokens.iter().map(|token| (token_text(token), token.train)), "·", colours);
        let _ = writeln!(out, "{all} tokens, {trained} with loss");
    }
    for (name, value) in &row.others {
        let _ = writeln!(out, "{}: {}", visible(name), visible(value));
    }
    out
}

fn length(token: &Token) -> usize {
    token.ids.len() * token.times
}

fn token_text(token: &Token) -> String {
    let text = visible(&token.text).into_owned();
    if token.times > 1 { format!("{text} ×{}", token.times) } else { text }
}

/// Pieces one after the other, those with loss in green, or in brackets where there is no colour.
fn marked(pieces: impl Iterator<Item = (String, bool)>, between: &str, colours: Colours) -> String {
    let mut runs: Vec<(bool, Vec<String>)> = Vec::new();
    for (text, train) in pieces {
        match runs.last_mut() {
            Some((same, texts)) if *same == train => texts.push(text),
            _ => runs.push((train, vec![text])),
        }
    }
    let mut out = String::new();
    for (train, texts) in runs {
        let text = texts.join(between);
        match (train, colours) {
            (true, Colours::None) => out.extend(["⟦", &text, "⟧"]),
            (false, Colours::None) => out += &text,
            (true, _) => out += &each_line(&text, "32", colours),
            (false, _) => out += &each_line(&text, "2", colours),
        }
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// Styles line by line, so that a pager that starts in the middle shows the right colours.
fn each_line(text: &str, code: &str, colours: Colours) -> String {
    let line = |line: &str| if line.is_empty() { String::new() } else { style(line, code, colours) };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

fn style(text: &str, code: &str, colours: Colours) -> String {
    if colours == Colours::None { text.to_owned() } else { format!("\x1b[{code}m{text}\x1b[0m") }
}

/// Half blocks: the upper pixel is the letter's colour, the lower one its background.
fn render_image(image: &Image, colours: Colours) -> String {
    if colours == Colours::None {
        return format!("image of {} × {}\n", image.width, image.height);
    }
    let columns = IMAGE_COLUMNS.min(image.width);
    let lines = (columns * image.height / image.width.max(1)).div_ceil(2);
    let mut out = String::new();
    for line in 0..lines {
        for column in 0..columns {
            let upper = colour(image.mean(column, 2 * line, columns, 2 * lines), colours);
            let lower = colour(image.mean(column, 2 * line + 1, columns, 2 * lines), colours);
            let _ = write!(out, "\x1b[38;{upper};48;{lower}m▀");
        }
        out += "\x1b[0m\n";
    }
    out
}

fn colour([r, g, b]: [u8; 3], colours: Colours) -> String {
    if colours == Colours::True {
        return format!("2;{r};{g};{b}");
    }
    // The 6 x 6 x 6 cube of xterm's 256 colours.
    let level = |value: u8| u32::from(value) * 5 / 255;
    format!("5;{}", 16 + 36 * level(r) + 6 * level(g) + level(b))
}

#[cfg(test)]
mod tests {
    use super::super::tests::page;
    use super::*;
    use insta::assert_snapshot;

    #[test]
    fn a_page_without_colours() {
        assert_snapshot!(render(&page(), Colours::None), @r"
        tokens (tokenize): rows 0 to 1

        row 0  GCC_train_000000017
        image of 2 × 1
        user: What is <this>?
        <|im_start|>user
        What is <this>?<|im_end|>
        <|im_start|>assistant
        ⟦A 图.<|im_end|>⟧
        <|image_pad|> ×49·?⟦A· 图⟧
        53 tokens, 3 with loss
        n_images: 1

        row 1  GCC_train_000000018
        rejected: decode-resize/undecodable: image 1: begins with `<html>`
        ");
    }

    #[test]
    fn an_image_in_colours() {
        let image = Image { width: 2, height: 2, rgb: vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9] };
        assert_eq!(
            render_image(&image, Colours::True),
            "\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[38;2;0;255;0;48;2;9;9;9m▀\x1b[0m\n"
        );
        assert_eq!(
            render_image(&image, Colours::Few),
            "\x1b[38;5;196;48;5;21m▀\x1b[38;5;46;48;5;16m▀\x1b[0m\n"
        );
    }

    #[test]
    fn no_control_character_of_the_data_reaches_the_terminal() {
        let row = Row {
            id: "\x1b]0;title\x07".to_owned(),
            reject: Some("a\rb\u{9b}2J".to_owned()),
            others: vec![("c".to_owned(), "\x1b[2J\u{202e}x".to_owned())],
            ..Row::default()
        };
        let text = render_row(&row, Colours::None);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(text.contains("␛]0;title␇") && text.contains("a␍b"), "{text:?}");
    }
}
