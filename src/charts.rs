//! Charts as PNG.

use std::path::Path;
use std::sync::Once;

use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use tch::{Kind, Tensor};

use crate::train::Metrics;
use crate::{Error, Result, files};

const INK: RGBColor = RGBColor(33, 37, 41);
const BLUE: RGBColor = RGBColor(31, 119, 180);
const ORANGE: RGBColor = RGBColor(217, 95, 2);

/// Draws on a bitmap and writes it as PNG.
fn png(
    path: &Path,
    (width, height): (u32, u32),
    draw: impl FnOnce(&DrawingArea<BitMapBackend, plotters::coord::Shift>) -> Result<(), String>,
) -> Result<()> {
    static FONT: Once = Once::new();
    FONT.call_once(|| {
        // Fails only for a font that cannot be parsed, which a test would show.
        let _ = register_font("sans-serif", FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
    });
    let mut pixels = vec![0; (width * height * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        area.fill(&WHITE).map_err(|error| Error::Chart(error.to_string()))?;
        draw(&area).map_err(Error::Chart)?;
        area.present().map_err(|error| Error::Chart(error.to_string()))?;
    }
    let image = image::RgbImage::from_raw(width, height, pixels).expect("the buffer has this size");
    write_png(path, &image.into())
}

/// The learning curve: losses above, test error below, by epoch.
///
/// # Errors
/// Where the file cannot be written.
pub fn curve(path: &Path, metrics: &[Metrics]) -> Result<()> {
    let Some(last) = metrics.last() else { return Ok(()) };
    let epochs = 1.0..f64::from(last.epoch).max(2.0);
    png(path, (900, 760), |area| {
        let (losses, errors) = area.split_vertically(380);
        let points = |value: fn(&Metrics) -> f64| {
            metrics.iter().map(move |m| (f64::from(m.epoch), value(m))).collect::<Vec<_>>()
        };
        panel(
            &losses,
            "loss (mean cross-entropy, nats)",
            epochs.clone(),
            &[
                ("training", BLUE, points(|m| m.train_loss)),
                ("test", ORANGE, points(|m| m.test_loss)),
            ],
        )?;
        let caption =
            format!("test error, %: {:.2} after epoch {}", last.test_error_percent, last.epoch);
        panel(
            &errors,
            &caption,
            epochs.clone(),
            &[("test", ORANGE, points(|m| m.test_error_percent))],
        )
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

/// A confusion matrix: label down, answer across; the shade grows with the share of the row.
///
/// # Errors
/// Where the file cannot be written.
pub fn confusion(path: &Path, matrix: &[Vec<i64>]) -> Result<()> {
    let classes = matrix.len() as i32;
    let cell = (720 / classes.max(1)).clamp(12, 72);
    let (left, top) = (70, 90);
    let size = ((left + cell * classes + 30) as u32, (top + cell * classes + 30) as u32);
    png(path, size, |area| {
        let text = |label: &str, at: (i32, i32), size: i32, colour: RGBColor| {
            let style = ("sans-serif", size).into_font().color(&colour);
            let style = style.pos(plotters::style::text_anchor::Pos::new(
                plotters::style::text_anchor::HPos::Center,
                plotters::style::text_anchor::VPos::Center,
            ));
            area.draw(&Text::new(label.to_owned(), at, style)).map_err(|error| error.to_string())
        };
        let middle = left + cell * classes / 2;
        text("answer across, label down", (middle, 28), 20, INK)?;
        let font = (cell / 3).clamp(9, 18);
        for (row, counts) in matrix.iter().enumerate() {
            let offset = |index: usize| index as i32 * cell;
            let y = top + offset(row);
            text(&row.to_string(), (left - 22, y + cell / 2), font, INK)?;
            text(&row.to_string(), (left + offset(row) + cell / 2, top - 18), font, INK)?;
            let total = counts.iter().sum::<i64>().max(1);
            for (column, &count) in counts.iter().enumerate() {
                let x = left + offset(column);
                let share = count as f64 / total as f64;
                // Errors are rare: the fourth root makes one in a thousand visible.
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
                    text(&count.to_string(), (x + cell / 2, y + cell / 2), font, INK)?;
                }
            }
        }
        Ok(())
    })
}

/// Pictures in rows: (rows, columns, H, W), 0 for paper to 1 for ink; each enlarged by two.
///
/// # Errors
/// Where the file cannot be written.
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
    let image = image::GrayImage::from_raw(size.0 as u32, size.1 as u32, grey);
    let image = image.expect("the buffer has this size");
    write_png(path, &image.into())
}

fn write_png(path: &Path, image: &image::DynamicImage) -> Result<()> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, image::ImageFormat::Png)
        .map_err(|error| Error::Chart(error.to_string()))?;
    files::write_atomic(path, bytes.get_ref())
}
