//! What `peek` shows of a row, whatever stage it comes from.

/// Rows of one stage.
#[derive(Debug, Default)]
pub struct Page {
    pub manifest: String,
    pub stage: String,
    pub kind: String,
    pub rows: Vec<Row>,
    /// When only rejected rows are shown: how many there are for each reason.
    pub reasons: Option<Vec<(String, u64)>>,
}

impl Page {
    /// "rows 0 to 2", or that there are none; of rejected rows, how many there are and why.
    pub fn range(&self) -> String {
        if let Some(reasons) = &self.reasons {
            let all: u64 = reasons.iter().map(|(_, rows)| rows).sum();
            let counts: Vec<_> = reasons.iter().map(|(reason, rows)| format!("{reason} {rows}")).collect();
            let why = if all > 0 { format!(" ({})", counts.join(", ")) } else { String::new() };
            return format!("{} of {all} rejected rows{why}", self.rows.len());
        }
        match (self.rows.first(), self.rows.last()) {
            (Some(first), Some(last)) if first.position < last.position => {
                format!("rows {} to {}", first.position, last.position)
            }
            (Some(first), _) => format!("row {}", first.position),
            _ => "no rows here".to_owned(),
        }
    }
}

/// One row; what a stage does not have is left empty.
#[derive(Debug, Default)]
pub struct Row {
    /// Position in the table.
    pub position: u64,
    /// The `id` of the source.
    pub id: String,
    pub images: Vec<Image>,
    pub messages: Vec<Message>,
    /// The rendered chat template.
    pub segments: Vec<Segment>,
    pub tokens: Vec<Token>,
    /// Other columns, by name.
    pub others: Vec<(String, String)>,
    /// `<kind>/<code>: <detail>` when the row cannot be used.
    pub reject: Option<String>,
}

/// One turn of a conversation.
#[derive(Debug)]
pub struct Message {
    pub role: String,
    pub content: String,
}

/// A stretch of the rendered conversation.
#[derive(Debug)]
pub struct Segment {
    pub text: String,
    /// Whether the model is trained to write it.
    pub train: bool,
}

/// One token, or several that only together are text, or a run of the same token.
#[derive(Debug, PartialEq)]
pub struct Token {
    pub text: String,
    pub ids: Vec<u32>,
    /// How often it stands there, one after the other.
    pub times: usize,
    /// Whether it carries loss.
    pub train: bool,
}

/// An image as the model sees it: RGB, row by row.
#[derive(Debug)]
pub struct Image {
    pub width: usize,
    pub height: usize,
    /// `3 * width * height` bytes.
    pub rgb: Vec<u8>,
}

impl Image {
    /// From planes, channels first, as `decode-resize` stores them; `None` when the bytes are no square image.
    pub fn from_planes(planes: &[u8]) -> Option<Self> {
        let size = (planes.len() / 3).isqrt();
        let area = size * size;
        if size == 0 || area * 3 != planes.len() {
            return None;
        }
        let (red, rest) = planes.split_at(area);
        let (green, blue) = rest.split_at(area);
        let rgb = red.iter().zip(green).zip(blue).flat_map(|((&r, &g), &b)| [r, g, b]).collect();
        Some(Self { width: size, height: size, rgb })
    }

    /// The colour at a place; black outside.
    pub fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let start = 3 * (y * self.width + x);
        match self.rgb.get(start..start + 3) {
            Some(&[r, g, b]) if x < self.width => [r, g, b],
            _ => [0; 3],
        }
    }

    /// The mean colour of a cell of a grid of `columns` by `lines` laid over the image.
    pub fn mean(&self, column: usize, line: usize, columns: usize, lines: usize) -> [u8; 3] {
        let range = |index: usize, cells: usize, pixels: usize| {
            let start = index * pixels / cells.max(1);
            start..((index + 1) * pixels / cells.max(1)).max(start + 1)
        };
        let (xs, ys) = (range(column, columns, self.width), range(line, lines, self.height));
        let count = xs.len() * ys.len();
        let mut sums = [0; 3];
        for y in ys {
            for x in xs.clone() {
                for (sum, value) in sums.iter_mut().zip(self.at(x, y)) {
                    *sum += usize::from(value);
                }
            }
        }
        sums.map(|sum| (sum / count.max(1)) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_pixels() {
        let image = Image::from_planes(&[1, 2, 3, 4, 11, 12, 13, 14, 21, 22, 23, 24]).unwrap();
        assert_eq!((image.width, image.height), (2, 2));
        assert_eq!(image.at(1, 0), [2, 12, 22]);
        assert_eq!(image.mean(0, 0, 1, 1), [2, 12, 22]);
        assert!(Image::from_planes(&[0; 7]).is_none());
    }
}
