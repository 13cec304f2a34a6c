//! The recognizer, with JavaScript's types.

use js_sys::{Array, Error, Float32Array, JSON, Object, Reflect, Uint8Array, Uint8ClampedArray};
use lenet5_core::data::digit::PIXELS;
use lenet5_core::recognizer::{Pattern, Reading};
use lenet5_core::weights::Limits;
use lenet5_core::{Network, Picture, PictureLimits, Recognizer as CoreRecognizer, Weights};
use wasm_bindgen::prelude::*;

/// The most bytes of a picture or a file. The module has 4 GiB in all.
const MAX_BYTES: u32 = 1 << 30;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = include_str!("types.d.ts");

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(typescript_type = "RecognizerOptions")]
    pub type RecognizerOptions;
    #[wasm_bindgen(typescript_type = "ReadOptions")]
    pub type ReadOptions;
    #[wasm_bindgen(typescript_type = "Reading")]
    pub type ReadingObject;
    #[wasm_bindgen(typescript_type = "Layer[]")]
    pub type LayerArray;
    #[wasm_bindgen(typescript_type = "Float32Array[] | undefined")]
    pub type Codes;

    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn log_error(message: &str);
}

/// Shows the message of a panic, which is a fault of this module, in the browser's console. The caller gets a RuntimeError.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|panic| log_error(&panic.to_string())));
}

/// Reads handwritten digits with LeNet-5. Its memory is released by `free()`.
#[wasm_bindgen]
pub struct Recognizer {
    core: CoreRecognizer,
    notes: Vec<String>,
}

#[wasm_bindgen]
impl Recognizer {
    /// Creates a recognizer.
    ///
    /// It throws a WeightsError if `weights` is no file of weights of a LeNet-5.
    #[wasm_bindgen(constructor)]
    pub fn new(options: Option<RecognizerOptions>) -> Result<Recognizer, JsValue> {
        let options = JsValue::from(options);
        let (network, weights) = (option(&options, "network")?, option(&options, "weights")?);
        let (core, notes) = match weights {
            Some(file) => {
                let weights = Weights::from_bytes(&bytes("weights", file)?, &Limits::default())
                    .map_err(|message| fail("WeightsError", &message))?;
                (CoreRecognizer::new(&weights).map_err(failure)?, weights.notes())
            }
            None => {
                let network = text(&network, "modern").parse::<Network>().map_err(|_| {
                    fail("RangeError", "network: expected modern or original, found another name")
                })?;
                (CoreRecognizer::shipped(network).map_err(failure)?, Vec::new())
            }
        };
        let reject_below = match option(&options, "rejectBelow")? {
            None => None,
            Some(value) => match value.as_f64() {
                Some(confidence) if (0.0..=1.0).contains(&confidence) => Some(confidence as f32),
                _ => return Err(fail("RangeError", "rejectBelow: expected a number from 0 to 1")),
            },
        };
        Ok(Self { core: core.reject_below(reject_below), notes })
    }

    /// The network: "modern", or "original" for that of 1998.
    #[wasm_bindgen(getter)]
    pub fn network(&self) -> String {
        self.core.config().network.to_string()
    }

    /// The number of classes.
    #[wasm_bindgen(getter)]
    pub fn classes(&self) -> usize {
        self.core.config().classes
    }

    /// The settings of the network as JSON.
    #[wasm_bindgen(getter)]
    pub fn settings(&self) -> String {
        serde_json::to_string(self.core.config()).expect("settings are plain data")
    }

    /// Notes on the file of weights: what was assumed.
    #[wasm_bindgen(getter)]
    pub fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// The codes of the classes of the network of 1998, 84 numbers each; undefined for other networks.
    #[wasm_bindgen(getter)]
    pub fn codes(&self) -> Codes {
        let Some(codes) = self.core.codes() else { return JsValue::UNDEFINED.unchecked_into() };
        let rows = codes.iter().map(|code| JsValue::from(Float32Array::from(&code[..])));
        rows.map(|code| JsValue::from(Array::from(&code))).collect::<Array>().unchecked_into()
    }

    /// Reads the digits in the bytes of a picture file: PNG, JPEG, WebP, TIFF, GIF, BMP and others.
    ///
    /// It throws a PictureError if the bytes are no picture, and a NoDigitsError if there are no digits in it.
    pub fn read(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Uint8Array")] file: JsValue,
        options: Option<ReadOptions>,
    ) -> Result<ReadingObject, JsValue> {
        let picture = Picture::decode(&bytes("file", file)?, &PictureLimits::default())
            .map_err(|message| fail("PictureError", &message))?;
        self.reading_of(&picture, options)
    }

    /// Reads the digits in pixels, such as the `data` of a canvas's ImageData: red, green, blue and alpha, row by row.
    ///
    /// It throws a NoDigitsError if there are no digits in the picture.
    #[wasm_bindgen(js_name = readPixels)]
    pub fn read_pixels(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Uint8ClampedArray | Uint8Array")] rgba: JsValue,
        width: f64,
        height: f64,
        options: Option<ReadOptions>,
    ) -> Result<ReadingObject, JsValue> {
        let [width, height] = [side("width", width)?, side("height", height)?];
        let picture = Picture::from_rgba(width, height, bytes("rgba", rgba)?)
            .map_err(|error| fail("RangeError", &error.to_string()))?;
        self.reading_of(&picture, options)
    }

    /// Returns the probabilities of the classes for pictures of single digits in MNIST's form: 28x28 bytes each, 0 for
    /// paper to 255 for ink. The result has `classes` numbers for each picture. The network decides alone here, without
    /// the reject network.
    pub fn classify(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Uint8Array")] pictures: JsValue,
    ) -> Result<Vec<f32>, JsValue> {
        let pictures = bytes("pictures", pictures)?;
        let (pictures, rest) = pictures.as_chunks::<PIXELS>();
        if !rest.is_empty() {
            let message = format!(
                "pictures: expected 784 bytes each, found {} more than whole pictures have",
                rest.len()
            );
            return Err(fail("RangeError", &message));
        }
        Ok(self.core.classify(pictures).concat())
    }

    /// Computes the outputs of all layers for a digit's `pixels`. The first one is the input as the network takes it.
    pub fn layers(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Uint8Array")] pixels: JsValue,
    ) -> Result<LayerArray, JsValue> {
        let pixels = bytes("pixels", pixels)?;
        let pixels = pixels.as_slice().try_into().map_err(|_| {
            fail("RangeError", &format!("pixels: expected 784 bytes, found {}", pixels.len()))
        })?;
        let layers = self.core.layers(pixels).into_iter().map(|layer| {
            let object = Object::new();
            let shape = layer.shape.iter().map(|side| JsValue::from(*side as u32));
            set(&object, "name", &layer.name.into());
            set(&object, "shape", &shape.collect::<Array>());
            set(&object, "values", &Float32Array::from(&layer.values[..]));
            object
        });
        Ok(layers.collect::<Array>().unchecked_into())
    }
}

impl Recognizer {
    fn reading_of(
        &self,
        picture: &Picture,
        options: Option<ReadOptions>,
    ) -> Result<ReadingObject, JsValue> {
        let pattern = pattern(&JsValue::from(options))?;
        let reading = self.core.read_as(picture, &pattern).map_err(failure)?;
        Ok(object_of(&reading))
    }
}

/// The form of the lines that options state.
fn pattern(options: &JsValue) -> Result<Pattern, JsValue> {
    let range_error = |error: lenet5_core::Error| fail("RangeError", &error.to_string());
    match (option(options, "digits")?, option(options, "pattern")?) {
        (None, None) => Ok(Pattern::default()),
        (Some(digits), None) => {
            let digits = digits.as_f64().map(|number| number.to_string()).or(digits.as_string());
            Pattern::parse_digits(&digits.unwrap_or_default()).map_err(range_error)
        }
        (None, pattern) => text(&pattern, "").parse().map_err(range_error),
        (Some(_), Some(_)) => Err(fail("TypeError", "expected digits or pattern, found both")),
    }
}

/// Converts a reading to an object with the names of the service's JSON, and adds the digits' pixels.
fn object_of(reading: &Reading) -> ReadingObject {
    let json = serde_json::to_string(reading).expect("a reading is plain data");
    let object = JSON::parse(&json).expect("it is JSON");
    let digits = Reflect::get(&object, &"digits".into()).expect("it is an object");
    for (digit, object) in reading.digits.iter().zip(Array::from(&digits).iter()) {
        set(&object, "pixels", &Uint8Array::from(&digit.pixels[..]));
    }
    object.unchecked_into()
}

fn set(object: &JsValue, name: &str, value: &JsValue) {
    Reflect::set(object, &name.into(), value).expect("it is an object");
}

/// The option of this name; `None` if it is absent.
fn option(options: &JsValue, name: &str) -> Result<Option<JsValue>, JsValue> {
    if options.is_null() || options.is_undefined() {
        return Ok(None);
    }
    if !options.is_object() {
        return Err(fail("TypeError", "expected an object with options"));
    }
    let value = Reflect::get(options, &name.into())?;
    Ok((!value.is_null() && !value.is_undefined()).then_some(value))
}

/// The bytes of an array of bytes.
fn bytes(name: &str, value: JsValue) -> Result<Vec<u8>, JsValue> {
    let array = match value.dyn_into::<Uint8ClampedArray>() {
        Ok(clamped) => Uint8Array::new_with_byte_offset_and_length(
            &clamped.buffer(),
            clamped.byte_offset(),
            clamped.length(),
        ),
        Err(value) => value
            .dyn_into::<Uint8Array>()
            .map_err(|_| fail("TypeError", &format!("{name}: expected a Uint8Array")))?,
    };
    if array.length() > MAX_BYTES {
        let found = array.length();
        let message = format!("{name}: expected at most {MAX_BYTES} bytes, found {found}");
        return Err(fail("RangeError", &message));
    }
    Ok(array.to_vec())
}

/// A side of a picture, in pixels.
fn side(name: &str, length: f64) -> Result<u32, JsValue> {
    if length >= 1.0 && length <= f64::from(u32::MAX) && length.fract() == 0.0 {
        return Ok(length as u32);
    }
    let message = format!("{name}: expected a whole number of pixels from 1 on, found {length}");
    Err(fail("RangeError", &message))
}

/// The text of an option: `absent` if there is none, and empty text for another type.
fn text(value: &Option<JsValue>, absent: &str) -> String {
    match value {
        None => absent.to_owned(),
        Some(value) => value.as_string().unwrap_or_default(),
    }
}

/// An error of JavaScript with a name, by which callers tell errors apart.
fn fail(name: &str, message: &str) -> JsValue {
    let error = Error::new(message);
    error.set_name(name);
    error.into()
}

fn failure(error: lenet5_core::Error) -> JsValue {
    let name = match error {
        lenet5_core::Error::Picture(_) => "NoDigitsError",
        _ => "WeightsError",
    };
    fail(name, &error.to_string())
}
