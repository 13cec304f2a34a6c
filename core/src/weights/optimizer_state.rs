//! The state of an optimizer, and its form in a checkpoint.

use super::Value;
use crate::Array;

/// The state of an optimizer between two steps. Its tensors are float32. There is one for each
/// trained parameter, in the order of the parameters and with their shapes.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum OptimizerState {
    /// No state: before the first step, or of an optimizer without a state.
    #[default]
    Empty,
    /// The running sums of gradients that `torch.optim.SGD` with momentum keeps.
    Sgd {
        /// The running sum of each parameter.
        momentum_buffer: Vec<Array>,
    },
    /// The moments that `torch.optim.Adam` and `AdamW` keep.
    Adam {
        /// The number of steps so far.
        step: f64,
        /// The running means of the gradients.
        exp_avg: Vec<Array>,
        /// The running means of the squared gradients.
        exp_avg_sq: Vec<Array>,
    },
    /// The second derivatives that SDLM estimated for the current epoch.
    Sdlm {
        /// The second derivatives of each parameter.
        curvature: Vec<Array>,
    },
}

impl OptimizerState {
    /// The tensors of all parameters, by the names that PyTorch's state dicts use.
    fn entries(&self) -> Vec<(&'static str, &[Array])> {
        match self {
            Self::Empty => Vec::new(),
            Self::Sgd { momentum_buffer } => vec![("momentum_buffer", momentum_buffer)],
            Self::Adam { exp_avg, exp_avg_sq, .. } => {
                vec![("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)]
            }
            Self::Sdlm { curvature } => vec![("curvature", curvature)],
        }
    }

    /// Converts the state to the form that PyTorch's optimizer state dicts have: the entries of
    /// each parameter under its index.
    pub(super) fn to_value(&self) -> Value {
        let entries = self.entries();
        let parameters = entries.first().map_or(0, |(_, arrays)| arrays.len());
        let items = (0..parameters).map(|i| {
            let mut state = Vec::new();
            if let Self::Adam { step, .. } = self {
                state.push(("step", Value::Tensor(Array::from_f32(&[], &[*step as f32]))));
            }
            state.extend(
                entries.iter().map(|(name, arrays)| (*name, Value::Tensor(arrays[i].clone()))),
            );
            (Value::Int(i as i64), Value::dict(state))
        });
        Value::Dict { items: items.collect(), attributes: None }
    }

    /// Reads the state from a state dict. `shapes` are those of the trained parameters. Checks that
    /// all numbers are finite, and that none is negative where that is impossible.
    pub(super) fn from_value(
        state: &[(Value, Value)],
        shapes: &[Vec<usize>],
    ) -> Result<Self, String> {
        if state.is_empty() {
            return Ok(Self::Empty);
        }
        if state.len() != shapes.len() {
            return Err(format!(
                "optimizer state: expected {} parameters, found {}",
                shapes.len(),
                state.len()
            ));
        }
        let first = state[0].1.items().unwrap_or_default();
        let names: Vec<&str> = first.iter().filter_map(|(name, _)| name.as_str()).collect();
        let has = |name: &str| names.contains(&name);
        let kept: &[&'static str] = match () {
            () if has("momentum_buffer") => &["momentum_buffer"],
            () if has("exp_avg") || has("exp_avg_sq") || has("step") => {
                &["step", "exp_avg", "exp_avg_sq"]
            }
            () if has("curvature") => &["curvature"],
            () if names.is_empty() => &[],
            () => {
                return Err(format!(
                    "optimizer state: expected that of SGD, Adam or SDLM, found {}",
                    names[0]
                ));
            }
        };
        let mut columns: Vec<Vec<Array>> = vec![Vec::new(); kept.len()];
        let mut steps = Vec::new();
        for (i, ((key, entries), shape)) in state.iter().zip(shapes).enumerate() {
            if key.as_int() != Some(i as i64) {
                return Err(format!(
                    "expected the optimizer's state of parameter {i}, found another order"
                ));
            }
            let entries = entries.items().unwrap_or_default();
            let tensors: Vec<(&str, &Array)> = entries
                .iter()
                .filter_map(|(name, value)| Some((name.as_str()?, value.as_tensor()?)))
                .collect();
            if let Some((name, _)) = tensors.iter().find(|(name, _)| !kept.contains(name)) {
                return Err(format!("optimizer state: expected {}, found {name}", kept.join(", ")));
            }
            if tensors.len() != kept.len() {
                let (kept, found) = (kept.join(", "), tensors.len());
                return Err(format!(
                    "optimizer state of parameter {i}: expected {kept}, found {found} tensors"
                ));
            }
            for (column, kept) in kept.iter().enumerate() {
                let Some((name, array)) = tensors.iter().find(|(name, _)| name == kept) else {
                    return Err(format!(
                        "optimizer state of parameter {i}: expected {kept}, found none"
                    ));
                };
                check_numbers(name, array)?;
                if *name == "step" {
                    let [step] = array.to_f64()[..] else {
                        return Err(format!(
                            "optimizer state step: expected one number, found shape {:?}",
                            array.shape()
                        ));
                    };
                    steps.push(step);
                    continue;
                }
                if array.shape() != shape {
                    return Err(format!(
                        "optimizer state {name}: expected shape {shape:?}, found {:?}",
                        array.shape()
                    ));
                }
                columns[column].push((*array).clone().into_f32());
            }
        }
        if steps.iter().any(|step| *step != steps[0]) {
            return Err("optimizer state step: expected the same of all parameters, found others"
                .to_owned());
        }
        Ok(match kept {
            [] => Self::Empty,
            ["momentum_buffer"] => Self::Sgd { momentum_buffer: columns.remove(0) },
            ["curvature"] => Self::Sdlm { curvature: columns.remove(0) },
            _ => {
                let exp_avg_sq = columns.remove(2);
                Self::Adam { step: steps[0], exp_avg: columns.remove(1), exp_avg_sq }
            }
        })
    }
}

/// Checks that the numbers of an optimizer state are finite, and that squares, second derivatives
/// and steps are not negative.
fn check_numbers(name: &str, array: &Array) -> Result<(), String> {
    let not_negative = matches!(name, "curvature" | "exp_avg_sq" | "step");
    let good = |value: &f64| value.is_finite() && (!not_negative || *value >= 0.0);
    match array.to_f64().iter().all(good) {
        true => Ok(()),
        false => {
            let what = if not_negative { "finite numbers from 0" } else { "finite numbers" };
            Err(format!("optimizer state {name}: expected {what}, found others"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adam(step: Array, second: &str) -> Result<OptimizerState, String> {
        let moment = || Value::Tensor(Array::zeros(&[3]));
        let entries = [("step", Value::Tensor(step)), ("exp_avg", moment()), (second, moment())];
        let state = [(Value::Int(0), Value::dict(entries))];
        OptimizerState::from_value(&state, &[vec![3]])
    }

    #[test]
    fn entries_of_adam_are_checked() {
        assert!(adam(Array::zeros(&[]), "exp_avg_sq").is_ok());
        assert_eq!(
            adam(Array::zeros(&[0]), "exp_avg_sq").unwrap_err(),
            "optimizer state step: expected one number, found shape [0]"
        );
        assert_eq!(
            adam(Array::zeros(&[]), "exp_avg").unwrap_err(),
            "optimizer state of parameter 0: expected exp_avg_sq, found none"
        );
    }
}
