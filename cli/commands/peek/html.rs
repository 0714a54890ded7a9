//! A [`Page`] as one HTML file that needs nothing else: images are inside it, light and dark follow the browser.
//!
//! The data is hostile: every text is escaped, and the page forbids scripts and requests of any kind.

use super::row::{Image, Page, Row, Token};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use llavm_model::processor::image::codecs::to_png;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");

/// The whole file.
pub fn render(page: &Page) -> String {
    let title = format!("{} · {}", escape(&page.stage), escape(&page.manifest));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    let _ = writeln!(
        out,
        "<header><h1>{} <small>{}</small></h1><p>{}, {}. <span class=\"loss\">Green</span> carries loss: \
         the model is trained to write it.</p></header>",
        escape(&page.stage),
        escape(&page.kind),
        escape(&page.manifest),
        page.range(),
    );
    for row in &page.rows {
        out += &render_row(row);
    }
    out + "</body>\n</html>\n"
}

fn render_row(row: &Row) -> String {
    let mut out = format!(
        "<article{}>\n<h2>{} <small>row {}</small></h2>\n",
        if row.reject.is_some() { " class=\"rejected\"" } else { "" },
        escape(&row.id),
        row.position
    );
    if let Some(reject) = &row.reject {
        let _ = writeln!(out, "<p class=\"reject\">{}</p>", escape(reject));
    }
    for source in row.images.iter().filter_map(data_uri) {
        let _ = writeln!(out, "<img alt=\"\" src=\"{source}\">");
    }
    for message in &row.messages {
        let (role, content) = (escape(&message.role), escape(&message.content));
        let _ = writeln!(out, "<p class=\"turn\"><b>{role}</b> {content}</p>");
    }
    if !row.segments.is_empty() {
        let spans: String =
            row.segments.iter().map(|segment| span(&segment.text, segment.train, "")).collect();
        let _ = writeln!(out, "<pre>{spans}</pre>");
    }
    if !row.tokens.is_empty() {
        let spans: String = row.tokens.iter().map(token).collect();
        let _ = writeln!(out, "<pre class=\"tokens\">{spans}</pre>");
    }
    for (name, value) in &row.others {
        let _ = writeln!(out, "<p class=\"other\"><b>{}</b> {}</p>", escape(name), escape(value));
    }
    out + "</article>\n"
}

fn token(token: &Token) -> String {
    let ids: Vec<String> = token.ids.iter().map(u32::to_string).collect();
    let times = if token.times > 1 { format!(" ×{}", token.times) } else { String::new() };
    span(&(token.text.clone() + &times), token.train, &ids.join(" "))
}

fn span(text: &str, train: bool, title: &str) -> String {
    let class = if train { " class=\"loss\"" } else { "" };
    let title = if title.is_empty() { String::new() } else { format!(" title=\"{}\"", escape(title)) };
    format!("<span{class}{title}>{}</span>", escape(text))
}

/// The image as a PNG; `None` when it cannot be one (no pixels).
fn data_uri(image: &Image) -> Option<String> {
    let size = (u32::try_from(image.width).ok()?, u32::try_from(image.height).ok()?);
    let png = to_png(&image.rgb, size)?;
    Some(format!("data:image/png;base64,{}", STANDARD.encode(png)))
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // No control character but these two is allowed in HTML.
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::page;
    use super::*;
    use insta::assert_snapshot;

    #[test]
    fn the_body_of_a_page() {
        let html = render(&page());
        let body = html.split("<body>\n").nth(1).unwrap();
        assert_snapshot!(body, @r#"
        <header><h1>tokens <small>tokenize</small></h1><p>cc3m &amp; more, rows 0 to 1. <span class="loss">Green</span> carries loss: the model is trained to write it.</p></header>
        <article>
        <h2>GCC_train_000000017 <small>row 0</small></h2>
        <img alt="" src="data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAIAAAB7QOjdAAAAEklEQVR4AQEHAPj/AP8AAAAA/wcAAf9VNrrHAAAAAElFTkSuQmCC">
        <p class="turn"><b>user</b> What is &lt;this&gt;?</p>
        <pre><span>&lt;|im_start|&gt;user
        What is &lt;this&gt;?&lt;|im_end|&gt;
        &lt;|im_start|&gt;assistant
        </span><span class="loss">A 图.&lt;|im_end|&gt;</span></pre>
        <pre class="tokens"><span title="151655">&lt;|image_pad|&gt; ×49</span><span title="30">?</span><span class="loss" title="32">A</span><span class="loss" title="55806 122"> 图</span></pre>
        <p class="other"><b>n_images</b> 1</p>
        </article>
        <article class="rejected">
        <h2>GCC_train_000000018 <small>row 1</small></h2>
        <p class="reject">decode-resize/undecodable: image 1: begins with `&lt;html&gt;`</p>
        </article>
        </body>
        </html>
        "#);
    }

    #[test]
    fn an_image_is_a_png_of_the_same_pixels() {
        let rgb: Vec<u8> = (0..2 * 3 * 3).collect();
        let uri = data_uri(&Image { width: 2, height: 3, rgb: rgb.clone() }).unwrap();
        let png = STANDARD.decode(uri.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        let back = image::load_from_memory(&png).unwrap().into_rgb8();
        assert_eq!((back.dimensions(), back.into_raw()), ((2, 3), rgb));
    }

    #[test]
    fn nothing_of_the_data_becomes_markup() {
        let evil = "\"><script>alert('x')</script>&\0";
        let row = Row {
            id: evil.to_owned(),
            reject: Some(evil.to_owned()),
            others: vec![(evil.to_owned(), evil.to_owned())],
            tokens: vec![Token { text: evil.to_owned(), ids: vec![1], times: 1, train: true }],
            ..Row::default()
        };
        let html = render(&Page { stage: evil.to_owned(), rows: vec![row], ..Page::default() });
        assert!(!html.contains("<script") && !html.contains('\0'), "{html}");
        assert!(html.contains("&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)"), "{html}");
    }
}
