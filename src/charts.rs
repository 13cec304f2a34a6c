//! Draws charts as PNG files.

use std::path::Path;
use std::sync::Once;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};
use tch::{Kind, Tensor};

use lenet5_core::{Picture, files};

use crate::evaluate::{Misclassified, Rejection};
use crate::{Error, Result};

const INK: RGBColor = RGBColor(33, 37, 41);
const BLUE: RGBColor = RGBColor(31, 119, 180);
const ORANGE: RGBColor = RGBColor(217, 95, 2);

/// Creates a bitmap, draws on it with `draw`, and writes it as PNG.
fn png(
    path: &Path,
    size: (u32, u32),
    draw: impl FnOnce(&Canvas) -> Result<(), String>,
) -> Result<()> {
    write_png(path, picture(size, draw)?)
}

/// Creates a picture, and draws on it with `draw`.
fn picture(
    (width, height): (u32, u32),
    draw: impl FnOnce(&Canvas) -> Result<(), String>,
) -> Result<Picture> {
    static FONT: Once = Once::new();
    FONT.call_once(|| {
        // Registering fails only for a font that cannot be parsed, which a test would detect.
        let _ = register_font("sans-serif", FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
    });
    let mut pixels = vec![0; (width * height * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        area.fill(&WHITE).map_err(|error| Error::Chart(error.to_string()))?;
        draw(&area).map_err(Error::Chart)?;
        area.present().map_err(|error| Error::Chart(error.to_string()))?;
    }
    Ok(Picture::from_rgb(width, height, pixels)?)
}

/// The values of one epoch in a learning curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// The number of the epoch, from 1.
    pub epoch: u32,
    /// The mean loss of the training images.
    pub train_loss: f64,
    /// The mean loss of the test images.
    pub test_loss: f64,
    /// Misclassified test images, in percent.
    pub test_error_percent: f64,
    /// Misclassified training images, in percent, if they are counted.
    pub train_error_percent: Option<f64>,
}

/// Draws the learning curve by epoch: losses above, errors below.
///
/// # Errors
/// If the file cannot be written.
pub fn curve(path: &Path, points: &[CurvePoint]) -> Result<()> {
    let Some(last) = points.last() else { return Ok(()) };
    let epochs = 1.0..f64::from(last.epoch).max(2.0);
    png(path, (900, 760), |area| {
        let (losses, errors) = area.split_vertically(380);
        let series = |value: fn(&CurvePoint) -> f64| {
            points
                .iter()
                .map(move |point| (f64::from(point.epoch), value(point)))
                .collect::<Vec<_>>()
        };
        panel(
            &losses,
            "loss (training: the loss function; test: cross-entropy)",
            epochs.clone(),
            &[
                ("training", BLUE, series(|point| point.train_loss)),
                ("test", ORANGE, series(|point| point.test_loss)),
            ],
        )?;
        let caption =
            format!("error, %: {:.2} after epoch {}", last.test_error_percent, last.epoch);
        let mut curves = vec![("test", ORANGE, series(|point| point.test_error_percent))];
        if points.iter().all(|point| point.train_error_percent.is_some()) {
            let error = |point: &CurvePoint| point.train_error_percent.unwrap_or_default();
            curves.insert(0, ("training", BLUE, series(error)));
        }
        panel(&errors, &caption, epochs.clone(), &curves)
    })
}

type Series<'a> = (&'a str, RGBColor, Vec<(f64, f64)>);

fn panel(
    area: &DrawingArea<BitMapBackend, plotters::coord::Shift>,
    caption: &str,
    epochs: std::ops::Range<f64>,
    series: &[Series],
) -> Result<(), String> {
    let top = series.iter().flat_map(|(_, _, points)| points).map(|(_, y)| *y).fold(1e-6, f64::max);
    let text = |error: DrawingAreaErrorKind<_>| format!("{error:?}");
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 20, &INK))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(epochs, 0.0..top * 1.05)
        .map_err(text)?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .x_label_formatter(&|x| if x.fract() == 0.0 { format!("{x}") } else { String::new() })
        .x_labels(10)
        .label_style(("sans-serif", 15, &INK))
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(text)?;
    for (name, colour, points) in series {
        let colour = *colour;
        chart
            .draw_series(
                LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(3),
            )
            .map_err(text)?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    if series.len() > 1 {
        chart
            .configure_series_labels()
            .label_font(("sans-serif", 16, &INK))
            .background_style(WHITE)
            .border_style(INK.mix(0.3))
            .draw()
            .map_err(text)?;
    }
    Ok(())
}

/// Draws a confusion matrix: labels are rows, predictions are columns. The shade grows with a
/// cell's share of its row.
///
/// # Errors
/// If the file cannot be written.
pub fn confusion(path: &Path, matrix: &[Vec<i64>]) -> Result<()> {
    let classes = matrix.len() as i32;
    let cell = (720 / classes.max(1)).clamp(12, 72);
    let (left, top) = (70, 90);
    let size = ((left + cell * classes + 30) as u32, (top + cell * classes + 30) as u32);
    png(path, size, |area| {
        let middle = left + cell * classes / 2;
        write(area, "prediction across, label down", (middle, 28), 20, INK)?;
        let font = (cell / 3).clamp(9, 18);
        for (row, counts) in matrix.iter().enumerate() {
            let offset = |index: usize| index as i32 * cell;
            let y = top + offset(row);
            write(area, &row.to_string(), (left - 22, y + cell / 2), font, INK)?;
            write(area, &row.to_string(), (left + offset(row) + cell / 2, top - 18), font, INK)?;
            let total = counts.iter().sum::<i64>().max(1);
            for (column, &count) in counts.iter().enumerate() {
                let x = left + offset(column);
                let share = count as f64 / total as f64;
                // Errors are rare. The fourth root makes one in a thousand visible.
                let shade = if row == column {
                    BLUE.mix(share * 0.8)
                } else {
                    ORANGE.mix(share.powf(0.25))
                };
                let corners = [(x, y), (x + cell, y + cell)];
                let draw = |style: ShapeStyle| {
                    area.draw(&Rectangle::new(corners, style)).map_err(|error| error.to_string())
                };
                draw(shade.filled())?;
                draw(INK.mix(0.15).stroke_width(1))?;
                if count > 0 && cell >= 24 {
                    write(area, &count.to_string(), (x + cell / 2, y + cell / 2), font, INK)?;
                }
            }
        }
        Ok(())
    })
}

/// Draws the rejection curve: the error among the accepted images against the rejected images, both
/// in percent. `others` are published results, as `(name, rejected, error)`.
///
/// # Errors
/// If the file cannot be written.
pub fn rejection(path: &Path, rejection: &Rejection, others: &[(&str, f64, f64)]) -> Result<()> {
    let farthest = others.iter().map(|(_, rejected, _)| *rejected).fold(3.0, f64::max);
    let curve: Vec<_> =
        rejection.curve().take_while(|(rejected, _)| *rejected <= farthest * 1.1).collect();
    let others_top = others.iter().map(|(.., error)| *error).fold(0.0, f64::max);
    let top = curve.iter().map(|(_, error)| *error).fold(others_top.max(0.1), f64::max) * 1.1;
    png(path, (900, 520), |area| {
        let text = |error: DrawingAreaErrorKind<_>| format!("{error:?}");
        let half = rejection.rejected_for(0.5);
        let mut chart = ChartBuilder::on(area)
            .caption(format!("{half:.2} % rejected for 0.5 % error"), ("sans-serif", 20, &INK))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..farthest * 1.1, 0.0..top)
            .map_err(text)?;
        chart
            .configure_mesh()
            .x_desc("rejected, %: those with the smallest gap between the two best classes")
            .y_desc("error among the others, %")
            .label_style(("sans-serif", 15, &INK))
            .light_line_style(TRANSPARENT)
            .draw()
            .map_err(text)?;
        chart.draw_series(LineSeries::new(curve, BLUE.stroke_width(2))).map_err(text)?;
        for (name, rejected, error) in others {
            let at = (*rejected, *error);
            chart.draw_series([Circle::new(at, 4, ORANGE.filled())]).map_err(text)?;
            // The label is beside the point, on the side that has more room.
            let (side, name) = match *rejected < farthest / 2.0 {
                true => (HPos::Left, format!("  {name}")),
                false => (HPos::Right, format!("{name}  ")),
            };
            let style = ("sans-serif", 15).into_font().color(&INK).pos(Pos::new(side, VPos::Top));
            let label = Text::new(name, at, style);
            chart.draw_series([label]).map_err(text)?;
        }
        Ok(())
    })
}

/// A picture with a caption.
pub struct Captioned {
    /// The picture: (H, W), 0 for paper to 255 for ink.
    pub picture: Tensor,
    /// The caption, such as `4->6`.
    pub caption: String,
    /// Whether the caption is highlighted by colour.
    pub marked: bool,
}

impl Captioned {
    /// Creates the picture of a misclassified image among `images` (N, H, W), captioned by its
    /// label and its prediction.
    pub fn misclassified(found: &Misclassified, images: &Tensor, marked: bool) -> Self {
        Self {
            picture: images.get(found.index),
            caption: format!("{}->{}", found.label, found.prediction),
            marked,
        }
    }
}

/// Draws pictures of at most 32x32 pixels with captions, as the paper's Fig. 8 shows the
/// misclassified digits, and writes them to a file.
///
/// # Errors
/// If the file cannot be written.
pub fn captioned(path: &Path, title: &str, pictures: &[Captioned]) -> Result<()> {
    write_png(path, captioned_picture(title, pictures, 14)?)
}

/// Draws pictures with captions, `columns` of them in a row: see [`captioned`].
///
/// # Errors
/// If libtorch reports an error.
pub(crate) fn captioned_picture(
    title: &str,
    pictures: &[Captioned],
    columns: usize,
) -> Result<Picture> {
    const CELL: (i32, i32) = (72, 88);
    let rows = pictures.len().div_ceil(columns).max(1) as i32;
    let size = (columns as i32 * CELL.0 + 20, rows * CELL.1 + 56);
    let mut cells = Vec::new();
    for captioned in pictures {
        cells.push(Vec::<f64>::try_from(captioned.picture.to_kind(Kind::Double).flatten(0, -1))?);
    }
    picture((size.0 as u32, size.1 as u32), |area| {
        write(area, title, (size.0 / 2, 24), 20, INK)?;
        for (i, (captioned, pixels)) in pictures.iter().zip(&cells).enumerate() {
            let (column, row) = ((i % columns) as i32, (i / columns) as i32);
            let (left, top) = (10 + column * CELL.0, 48 + row * CELL.1);
            let width = captioned.picture.size()[1] as usize;
            let at = (left + (CELL.0 - 2 * width as i32) / 2, top);
            map(area, pixels, width, at, 2, |pixel| 1.0 - pixel / 255.0)?;
            let colour = if captioned.marked { ORANGE } else { INK };
            write(area, &captioned.caption, (left + CELL.0 / 2, top + 72), 17, colour)?;
        }
        Ok(())
    })
}

/// Draws the outputs of all layers for one image, as
/// [`LeNet5::layers`](crate::model::LeNet5::layers) returns them. `input` has the shape (1, 1, S,
/// S). Grey values range from white for a layer's lowest value to black for its highest. The
/// network's outputs are numbers next to the classes. F6 is drawn in the shape of the original
/// network's codes, 12 rows of 7.
///
/// # Errors
/// If the file cannot be written.
pub fn layers(path: &Path, input: &Tensor, layers: &[(&'static str, Tensor)]) -> Result<()> {
    let mut blocks = vec![("input", input.squeeze_dim(0))];
    for (name, outputs) in layers {
        let outputs = outputs.squeeze_dim(0);
        blocks.push((
            *name,
            match outputs.size()[..] {
                [120] => outputs.reshape([1, 15, 8]),
                [84] => outputs.reshape([1, 12, 7]),
                _ => outputs,
            },
        ));
    }
    let (_, output) = blocks.pop().expect("a network has an output");
    let output = Vec::<f64>::try_from(output.to_kind(Kind::Double))?;
    let best = output.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    const TOP: i32 = 64;
    const HEIGHT: i32 = 420;
    // The number of columns of maps and the width of a value in pixels, for each block.
    let layout: [(usize, i32); 7] = [(1, 6), (2, 3), (2, 6), (4, 6), (4, 10), (1, 16), (1, 16)];
    png(path, (1700, (TOP + HEIGHT + 30) as u32), |area| {
        let mut left = 24;
        for ((name, maps), (columns, scale)) in blocks.iter().zip(layout) {
            let [count, height, width] = maps.size()[..] else {
                return Err(format!("{name}: expected maps, found {:?}", maps.size()));
            };
            let values = maps.to_kind(Kind::Double).contiguous().flatten(0, -1);
            let values = Vec::<f64>::try_from(values).map_err(|error| error.to_string())?;
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let shade = |value: f64| (high - value) / (high - low).max(1e-12);
            let (cell_width, cell_height) = (width as i32 * scale + 10, height as i32 * scale + 10);
            let rows = (count as usize).div_ceil(columns) as i32;
            let top = TOP + (HEIGHT - rows * cell_height) / 2;
            let middle = left + columns as i32 * cell_width / 2;
            write(area, &name.to_uppercase(), (middle, 20), 20, INK)?;
            let shape = match (*name, count) {
                ("input", _) => format!("{height}x{width}"),
                (_, 1) => format!("{}", height * width),
                _ => format!("{count} @ {height}x{width}"),
            };
            write(area, &shape, (middle, 44), 15, INK)?;
            for (i, pixels) in values.chunks((height * width) as usize).enumerate() {
                let (column, row) = ((i % columns) as i32, (i / columns) as i32);
                let at = (left + column * cell_width, top + row * cell_height);
                map(area, pixels, width as usize, at, scale, shade)?;
            }
            left += columns as i32 * cell_width + 24;
        }
        write(area, "OUTPUT", (left + 70, 20), 20, INK)?;
        write(area, &format!("{} classes", output.len()), (left + 70, 44), 15, INK)?;
        let step = (HEIGHT / output.len() as i32).min(40);
        let top = TOP + (HEIGHT - step * output.len() as i32) / 2;
        for (class, value) in output.iter().enumerate() {
            let y = top + class as i32 * step + step / 2;
            let colour = if *value == best { ORANGE } else { INK };
            let size = (step - 4).clamp(6, 20);
            write(area, &format!("{class}"), (left + 16, y), size, colour)?;
            write(area, &format!("{value:.2}"), (left + 84, y), size, colour)?;
        }
        Ok(())
    })
}

type Canvas<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;

/// Draws text centred on a point.
fn write(
    area: &Canvas,
    text: &str,
    at: (i32, i32),
    size: i32,
    colour: RGBColor,
) -> Result<(), String> {
    let style = ("sans-serif", size).into_font().color(&colour);
    let style = style.pos(Pos::new(HPos::Center, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style)).map_err(|error| error.to_string())
}

/// Draws values in rows as grey squares with a frame. `shade` maps a value to the range from 0
/// (black) to 1 (white).
fn map(
    area: &Canvas,
    values: &[f64],
    width: usize,
    (left, top): (i32, i32),
    scale: i32,
    shade: impl Fn(f64) -> f64,
) -> Result<(), String> {
    let draw = |corners: [(i32, i32); 2], style: ShapeStyle| {
        area.draw(&Rectangle::new(corners, style)).map_err(|error| error.to_string())
    };
    for (i, &value) in values.iter().enumerate() {
        let (x, y) = (left + (i % width) as i32 * scale, top + (i / width) as i32 * scale);
        let grey = (shade(value).clamp(0.0, 1.0) * 255.0).round() as u8;
        let colour = RGBColor(grey, grey, grey);
        draw([(x, y), (x + scale, y + scale)], colour.filled())?;
    }
    let (right, bottom) = (width as i32 * scale, (values.len() / width) as i32 * scale);
    draw([(left - 1, top - 1), (left + right, top + bottom)], INK.mix(0.4).stroke_width(1))
}

/// Draws pictures (rows, columns, H, W), 0 for paper to 1 for ink, each enlarged by two.
///
/// # Errors
/// If the file cannot be written.
pub fn sheet(path: &Path, pictures: &Tensor) -> Result<()> {
    const GAP: i64 = 2;
    let pad = pictures.constant_pad_nd([GAP, GAP, GAP, GAP]);
    let [rows, columns, height, width] = pad.size()[..] else {
        return Err(Error::Chart(format!("expected four dimensions, found {:?}", pictures.size())));
    };
    let flat = pad.permute([0, 2, 1, 3]).reshape([1, 1, rows * height, columns * width]);
    let large = flat.upsample_nearest2d([2 * rows * height, 2 * columns * width], None, None);
    let grey: Tensor = (1.0 - large.clamp(0.0, 1.0)) * 255.0;
    let grey = Vec::<u8>::try_from(grey.round().to_kind(Kind::Uint8).flatten(0, -1))?;
    let size = (2 * columns * width, 2 * rows * height);
    write_png(path, Picture::from_grey(size.0 as u32, size.1 as u32, grey)?)
}

fn write_png(path: &Path, picture: Picture) -> Result<()> {
    Ok(files::write_atomic(path, &picture.to_png()?)?)
}
