//! What an image shows: drawn from seed and row alone, before it is painted.
//!
//! A scene is one to three shapes that are alike (colour, form, size) in different cells of a 3 × 3 grid, on a plain or graded background.
//! Everything is in units of the image's side, so that the same scene can be painted at any size.

use super::words::{COLOURS, Fact, Language, PLACES, SHAPES, SIZES};
use rand::{Rng, RngExt};

/// Centre and radius of one shape, in units of the image's side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spot {
    pub x: f32,
    pub y: f32,
    pub radius: f32,
}

/// A scene, ready to be painted and asked about. `colour`, `shape`, `size` and `places` are indexes into the tables of
/// [`super::words`].
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    pub colour: usize,
    pub shape: usize,
    pub size: usize,
    /// The cells that hold a shape, one each.
    pub places: Vec<usize>,
    pub spots: Vec<Spot>,
    /// The colour as it is painted: the named one, a little off.
    pub paint: [u8; 3],
    /// The background at the top and at the bottom.
    pub background: [[u8; 3]; 2],
}

/// Radius of a shape in units of a cell's side: small, large.
const RADII: [(f32, f32); 2] = [(0.27, 0.32), (0.43, 0.48)];
/// How far a centre is from its cell's, at most, in units of a cell's side: small, large.
const JITTER: [f32; 2] = [0.10, 0.02];

impl Scene {
    /// Draws a scene of at most `objects` shapes.
    pub fn draw(random: &mut impl Rng, objects: usize) -> Self {
        let count = draw_count(random, objects);
        let colour = random.random_range(0..COLOURS.len());
        let shape = random.random_range(0..SHAPES.len());
        let size = random.random_range(0..SIZES.len());
        let places = draw_places(random, count);
        let spots = places.iter().map(|&place| draw_spot(random, place, size)).collect();
        let paint = nearby(random, COLOURS[colour].1, 15);
        Self { colour, shape, size, places, spots, paint, background: draw_background(random) }
    }

    /// The value of a fact; that of the place is the first shape's.
    pub fn value(&self, fact: Fact) -> usize {
        match fact {
            Fact::Colour => self.colour,
            Fact::Shape => self.shape,
            Fact::Size => self.size,
            Fact::Place => self.places[0],
            Fact::Count => self.places.len() - 1,
        }
    }

    /// All there is to see, in words: "a small red circle at the top left", "two large blue crosses".
    pub fn describe(&self, language: Language) -> String {
        let word = |fact: Fact| fact.word(self.value(fact), language);
        let (colour, shape, size) = (word(Fact::Colour), word(Fact::Shape), word(Fact::Size));
        match (language, self.places.len()) {
            (Language::En, 1) => format!("a {size} {colour} {shape} at the {}", word(Fact::Place)),
            (Language::En, _) => {
                let plural = if shape == "cross" { "es" } else { "s" };
                format!("{} {size} {colour} {shape}{plural}", word(Fact::Count))
            }
            (Language::Zh, 1) => format!("{}有一个{size}的{colour}{shape}", word(Fact::Place)),
            (Language::Zh, _) => format!("{}{size}的{colour}{shape}", word(Fact::Count)),
        }
    }

    /// The column `scene`: "small red circle: top left, right".
    pub fn label(&self) -> String {
        let word = |fact: Fact| fact.word(self.value(fact), Language::En);
        let places: Vec<&str> = self.places.iter().map(|&place| PLACES[place][0]).collect();
        format!("{} {} {}: {}", word(Fact::Size), word(Fact::Colour), word(Fact::Shape), places.join(", "))
    }
}

/// One in every second image: half of those are asked for the place instead of the count (see [`super::questions`]), so that all
/// counts are the answer equally often where there are three.
fn draw_count(random: &mut impl Rng, objects: usize) -> usize {
    if objects == 1 || random.random_bool(0.5) { 1 } else { random.random_range(2..=objects) }
}

/// `count` different cells.
fn draw_places(random: &mut impl Rng, count: usize) -> Vec<usize> {
    let mut cells: Vec<usize> = (0..PLACES.len()).collect();
    (0..count).map(|_| cells.remove(random.random_range(0..cells.len()))).collect()
}

fn draw_spot(random: &mut impl Rng, place: usize, size: usize) -> Spot {
    let cell = 1.0 / 3.0;
    let (least, most) = RADII[size];
    let radius = cell * random.random_range(least..most);
    let mut centre =
        |index: usize| cell * (index as f32 + 0.5 + random.random_range(-JITTER[size]..JITTER[size]));
    let (x, y) = (centre(place % 3), centre(place / 3));
    Spot { x, y, radius }
}

/// A light grey with a tint; every second one changes towards the bottom.
fn draw_background(random: &mut impl Rng) -> [[u8; 3]; 2] {
    let mut light = || {
        let grey = random.random_range(205..250);
        nearby(random, [grey; 3], 12)
    };
    let (top, bottom) = (light(), light());
    if random.random_bool(0.5) { [top, bottom] } else { [top, top] }
}

/// Each channel at most `off` away.
fn nearby(random: &mut impl Rng, colour: [u8; 3], off: i16) -> [u8; 3] {
    colour.map(|channel| (i16::from(channel) + random.random_range(-off..=off)).clamp(0, 255) as u8)
}
