//! The kernels of the network of 1998 against plain float64 loops, written from the paper.

#![allow(clippy::needless_range_loop)]

use lenet5_core::ForwardPass;
use lenet5_core::kernels::pattern::*;
use lenet5_core::kernels::simd::{Isa, Simd, WithSimd};
use lenet5_core::kernels::tanh::{scaled_tanh as vector_scaled_tanh, tanh};
use lenet5_core::model::{C3_TABLE, ModelConfig};
use lenet5_core::training::Loss;

use crate::common::{RandomNumbers, weights};

const A: f64 = 1.7159;
const S: f64 = 2.0 / 3.0;

fn scaled_tanh(a: f64) -> f64 {
    A * (S * a).tanh()
}
fn derivative(a: f64) -> f64 {
    A * S * (1.0 - (S * a).tanh().powi(2))
}

/// Parameters with which the scaled tanh is neither linear nor saturated, and the penalties are not negligible.
fn parameters(random: &mut RandomNumbers) -> PatternParameters {
    let mut p = PatternParameters::zeros();
    for ((name, _), range) in
        TENSORS.iter().zip([0.2, 0.1, 0.5, 0.2, 0.2, 0.1, 0.5, 0.2, 0.1, 0.1, 0.2, 0.1])
    {
        for (i, value) in p.get_mut(name).unwrap().iter_mut().enumerate() {
            if *name != "c3.weight" || c3_connected(i) {
                *value = (random.uniform() * range) as f32;
            }
        }
    }
    p
}

fn image(random: &mut RandomNumbers) -> [f32; PIXELS] {
    std::array::from_fn(|_| (random.uniform() * 0.6 + 0.5) as f32)
}

fn codes(classes: usize, random: &mut RandomNumbers) -> Vec<f32> {
    (0..classes * CODE).map(|_| if random.uniform() > 0.0 { 1.0 } else { -1.0 }).collect()
}

/// Parameters, or their derivatives, in float64, by tensor name.
type Named = Vec<(&'static str, Vec<f64>)>;

fn named(p: &PatternParameters) -> Named {
    p.iter().map(|(name, values)| (name, values.iter().map(|v| f64::from(*v)).collect())).collect()
}
fn of<'a>(p: &'a Named, name: &str) -> &'a [f64] {
    &p.iter().find(|(n, _)| *n == name).unwrap().1
}

struct Plain {
    image: Vec<f64>,
    a1: Vec<f64>,
    a2: Vec<f64>,
    a3: Vec<f64>,
    a4: Vec<f64>,
    a5: Vec<f64>,
    a6: Vec<f64>,
    y: Vec<f64>,
}

fn forward(p: &Named, image: &[f32], codes: &[f32], scale: f64) -> Plain {
    let image: Vec<f64> = image.iter().map(|x| f64::from(*x)).collect();
    let mut a1 = vec![];
    for m in 0..6 {
        for y in 0..28 {
            for x in 0..28 {
                let mut a = of(p, "c1.bias")[m];
                for ky in 0..5 {
                    for kx in 0..5 {
                        a += of(p, "c1.weight")[m * 25 + ky * 5 + kx]
                            * image[(y + ky) * 32 + x + kx];
                    }
                }
                a1.push(a);
            }
        }
    }
    let mut a2 = vec![];
    for m in 0..6 {
        for y in 0..14 {
            for x in 0..14 {
                let mut sum = 0.0;
                for (dy, dx) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    sum += scaled_tanh(a1[(m * 28 + 2 * y + dy) * 28 + 2 * x + dx]);
                }
                a2.push(sum * of(p, "s2.coefficient")[m] + of(p, "s2.bias")[m]);
            }
        }
    }
    let mut a3 = vec![];
    for m in 0..16 {
        for y in 0..10 {
            for x in 0..10 {
                let mut a = of(p, "c3.bias")[m];
                for i in 0..6 {
                    for ky in 0..5 {
                        for kx in 0..5 {
                            a += of(p, "c3.weight")[((m * 6 + i) * 5 + ky) * 5 + kx]
                                * scaled_tanh(a2[(i * 14 + y + ky) * 14 + x + kx]);
                        }
                    }
                }
                a3.push(a);
            }
        }
    }
    let mut a4 = vec![];
    for m in 0..16 {
        for y in 0..5 {
            for x in 0..5 {
                let mut sum = 0.0;
                for (dy, dx) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    sum += scaled_tanh(a3[(m * 10 + 2 * y + dy) * 10 + 2 * x + dx]);
                }
                a4.push(sum * of(p, "s4.coefficient")[m] + of(p, "s4.bias")[m]);
            }
        }
    }
    let dense = |input: &[f64], w: &[f64], b: &[f64]| -> Vec<f64> {
        (0..b.len())
            .map(|o| {
                b[o] + (0..input.len())
                    .map(|i| w[o * input.len() + i] * scaled_tanh(input[i]))
                    .sum::<f64>()
            })
            .collect()
    };
    let a5 = dense(&a4, of(p, "c5.weight"), of(p, "c5.bias"));
    let a6 = dense(&a5, of(p, "f6.weight"), of(p, "f6.bias"));
    let y = codes
        .chunks(CODE)
        .map(|code| {
            scale
                * (0..CODE).map(|j| (scaled_tanh(a6[j]) - f64::from(code[j])).powi(2)).sum::<f64>()
        })
        .collect();
    Plain { image, a1, a2, a3, a4, a5, a6, y }
}

fn cost(y: &[f64], label: usize, loss: Loss) -> f64 {
    match loss {
        Loss::CrossEntropy => y[label] + y.iter().map(|y| (-y).exp()).sum::<f64>().ln(),
        Loss::Distance => y[label],
        Loss::Discriminative { j } => {
            y[label] + ((-j).exp() + y.iter().map(|y| (-y).exp()).sum::<f64>()).ln()
        }
    }
}

/// The loss as a function of F6's sums alone.
fn cost_of_sums(
    a6: &[f64],
    codes: &[f32],
    scale: f64,
    label: usize,
    loss: Loss,
    scaled: bool,
) -> f64 {
    let y: Vec<f64> = codes
        .chunks(CODE)
        .map(|code| {
            let x = |j: usize| if scaled { a6[j] } else { scaled_tanh(a6[j]) };
            scale * (0..CODE).map(|j| (x(j) - f64::from(code[j])).powi(2)).sum::<f64>()
        })
        .collect();
    cost(&y, label, loss)
}

/// The recursion of the paper's appendix C in plain loops: `power` 1 gives the gradient, 2 the
/// second derivatives (all weights, inputs and derivatives squared). `d6` is the derivative with respect to F6's sums.
fn backward(p: &Named, f: &Plain, d6: &[f64], power: i32) -> Named {
    let zeros: Named = p.iter().map(|(n, v)| (*n, vec![0.0; v.len()])).collect();
    let mut g = zeros;
    let index = |name: &str| TENSORS.iter().position(|(n, _)| *n == name).unwrap();
    let w = |v: f64| v.powi(power);
    let mut dense = |d: &[f64], input: &[f64], layer: &str| -> Vec<f64> {
        let (wi, bi) = (index(&format!("{layer}.weight")), index(&format!("{layer}.bias")));
        let mut back = vec![0.0; input.len()];
        for o in 0..d.len() {
            g[bi].1[o] += d[o];
            for i in 0..input.len() {
                g[wi].1[o * input.len() + i] += d[o] * w(scaled_tanh(input[i]));
                back[i] += d[o] * w(p[wi].1[o * input.len() + i]);
            }
        }
        for i in 0..input.len() {
            back[i] *= w(derivative(input[i]));
        }
        back
    };
    let d5 = dense(d6, &f.a5, "f6");
    let d4 = dense(&d5, &f.a4, "c5");
    let mut pool = |d: &[f64], below: &[f64], maps: usize, size: usize, layer: &str| -> Vec<f64> {
        let (ci, bi) = (index(&format!("{layer}.coefficient")), index(&format!("{layer}.bias")));
        let mut back = vec![0.0; below.len()];
        for m in 0..maps {
            for y in 0..size {
                for x in 0..size {
                    let d = d[(m * size + y) * size + x];
                    g[bi].1[m] += d;
                    for (dy, dx) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        let at = (m * 2 * size + 2 * y + dy) * 2 * size + 2 * x + dx;
                        g[ci].1[m] += d * w(scaled_tanh(below[at]));
                        back[at] = d * w(p[ci].1[m]) * w(derivative(below[at]));
                    }
                }
            }
        }
        back
    };
    let d3 = pool(&d4, &f.a3, 16, 5, "s4");
    let mut d2 = vec![0.0; f.a2.len()];
    let (mut g3, mut b3) = (vec![0.0; 2400], vec![0.0; 16]);
    for m in 0..16 {
        for y in 0..10 {
            for x in 0..10 {
                let d = d3[(m * 10 + y) * 10 + x];
                b3[m] += d;
                for i in 0..6 {
                    if !C3_TABLE[m].contains(&i) {
                        continue;
                    }
                    for ky in 0..5 {
                        for kx in 0..5 {
                            let at = (i * 14 + y + ky) * 14 + x + kx;
                            let wi = ((m * 6 + i) * 5 + ky) * 5 + kx;
                            g3[wi] += d * w(scaled_tanh(f.a2[at]));
                            d2[at] += d * w(of(p, "c3.weight")[wi]);
                        }
                    }
                }
            }
        }
    }
    for (d, a) in d2.iter_mut().zip(&f.a2) {
        *d *= w(derivative(*a));
    }
    let d1 = pool(&d2, &f.a1, 6, 14, "s2");
    g[index("c3.weight")].1 = g3;
    g[index("c3.bias")].1 = b3;
    for m in 0..6 {
        for y in 0..28 {
            for x in 0..28 {
                let d = d1[(m * 28 + y) * 28 + x];
                g[index("c1.bias")].1[m] += d;
                for ky in 0..5 {
                    for kx in 0..5 {
                        g[index("c1.weight")].1[m * 25 + ky * 5 + kx] +=
                            d * w(f.image[(y + ky) * 32 + x + kx]);
                    }
                }
            }
        }
    }
    g
}

/// The derivative (order 1) or Gauss-Newton second derivative (order 2) of the loss with respect to F6's sums, by differences.
fn by_f6(f: &Plain, codes: &[f32], scale: f64, label: usize, loss: Loss, order: i32) -> Vec<f64> {
    let at: Vec<f64> =
        if order == 1 { f.a6.clone() } else { f.a6.iter().map(|a| scaled_tanh(*a)).collect() };
    (0..CODE)
        .map(|j| {
            let e = if order == 1 { 1e-5 } else { 1e-3 };
            let value = |step: f64| {
                let mut at = at.clone();
                at[j] += step;
                cost_of_sums(&at, codes, scale, label, loss, order == 2)
            };
            if order == 1 {
                (value(e) - value(-e)) / (2.0 * e)
            } else {
                (value(e) - 2.0 * value(0.0) + value(-e)) / (e * e) * derivative(f.a6[j]).powi(2)
            }
        })
        .collect()
}

/// Checks the largest difference, relative to the tensor's largest value.
fn compare(what: &str, ours: &PatternParameters, theirs: &Named, tolerance: f64) {
    for ((name, ours), (_, theirs)) in ours.iter().zip(theirs) {
        let largest = theirs.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        let worst =
            ours.iter().zip(theirs).fold(0.0_f64, |a, (o, t)| a.max((f64::from(*o) - t).abs()));
        println!(
            "{what:28} {name:15} largest {largest:.3e} difference {worst:.1e} ({:.1e})",
            worst / largest
        );
        assert!(worst <= tolerance * largest, "{what} {name}: {worst} of {largest}");
    }
}

const LOSSES: [(Loss, f64); 5] = [
    (Loss::CrossEntropy, 0.02),
    (Loss::Distance, 1.0 / 84.0),
    (Loss::Discriminative { j: 1.0 }, 0.02),
    (Loss::Discriminative { j: 1.0 }, 1.0 / 84.0),
    (Loss::Discriminative { j: 0.1 }, 0.05),
];

#[test]
fn forward_gradient_and_second_derivatives_against_float64() {
    let mut random = RandomNumbers(3);
    for isa in Isa::available() {
        for (loss, scale) in LOSSES {
            for classes in [10, 3, 96] {
                let p = parameters(&mut random);
                let (codes, image) = (codes(classes, &mut random), image(&mut random));
                let label = classes - 1;
                let net = PatternNetwork::new(&p, &codes, scale as f32, loss).with_isa(isa);
                let p64 = named(&p);
                let plain = forward(&p64, &image, &codes, scale);
                let mut buffers = PatternBuffers::new();
                let penalties = net.forward(&mut buffers, &image).to_vec();
                for (o, t) in penalties.iter().zip(&plain.y) {
                    assert!(
                        (f64::from(*o) - t).abs() < 1e-5 * t.abs().max(1.0),
                        "{} {o} {t}",
                        isa.name()
                    );
                }
                let expected = cost(&plain.y, label, loss);
                assert!(
                    (f64::from(net.loss(&penalties, label)) - expected).abs()
                        < 1e-5 * expected.abs().max(1.0)
                );

                let d6 = by_f6(&plain, &codes, scale, label, loss, 1);
                let gradient = net.gradient(&image, label);
                compare(
                    &format!("gradient {}", isa.name()),
                    &gradient,
                    &backward(&p64, &plain, &d6, 1),
                    2e-5,
                );
                let h6 = by_f6(&plain, &codes, scale, label, loss, 2);
                let curvature = net.curvature_of([(&image, label)]);
                compare(
                    &format!("second derivatives {}", isa.name()),
                    &curvature,
                    &backward(&p64, &plain, &h6, 2),
                    1e-4,
                );
            }
        }
    }
}

/// Checks the gradient by central differences of the whole network in float64.
#[test]
fn gradient_against_central_differences() {
    let mut random = RandomNumbers(5);
    for (loss, scale) in LOSSES {
        let p = parameters(&mut random);
        let (codes, image) = (codes(10, &mut random), image(&mut random));
        let gradient = PatternNetwork::new(&p, &codes, scale as f32, loss).gradient(&image, 4);
        let mut p64 = named(&p);
        for t in 0..12 {
            let ours = gradient.get(TENSORS[t].0).unwrap();
            let largest = ours.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
            let count = ours.len();
            for n in 0..16.min(count) {
                let i = n * (count / 16.min(count));
                if t == 4 && !c3_connected(i) {
                    continue;
                }
                let at = p64[t].1[i];
                let mut value = |x: f64| {
                    p64[t].1[i] = x;
                    cost(&forward(&p64, &image, &codes, scale).y, 4, loss)
                };
                let difference = (value(at + 1e-5) - value(at - 1e-5)) / 2e-5;
                p64[t].1[i] = at;
                let error = (difference - f64::from(ours[i])).abs();
                assert!(
                    error < 2e-5 * f64::from(largest),
                    "{} {i}: {} {difference}",
                    TENSORS[t].0,
                    ours[i]
                );
            }
        }
    }
}

/// If there are no cross terms, the recursion gives exactly the diagonal of the Gauss-Newton matrix. Here each unit of F6 and C5
/// has one connection only, and the diagonal is computed by differences of F6's sums.
#[test]
fn second_derivatives_are_gauss_newton_where_no_cross_terms_exist() {
    let mut random = RandomNumbers(7);
    let mut p = parameters(&mut random);
    // Unit k of F6 is only connected to unit k of C5, and that to position (2, 2) of S4's map k.
    for (i, w) in p.get_mut("f6.weight").unwrap().iter_mut().enumerate() {
        *w = if i / 120 == i % 120 { *w + 0.3 } else { 0.0 };
    }
    for (i, w) in p.get_mut("c5.weight").unwrap().iter_mut().enumerate() {
        let (output, map, position) = (i / 400, i / 25 % 16, i % 25);
        *w = if position == 12 && output == map { *w + 0.3 } else { 0.0 };
    }
    let (codes, image) = (codes(10, &mut random), image(&mut random));
    let scale = 1.0 / 84.0;
    let net = PatternNetwork::new(&p, &codes, scale as f32, Loss::Distance);
    let ours = net.curvature_of([(&image, 2)]);
    let mut p64 = named(&p);
    // The loss is s |x - w|², so the Gauss-Newton diagonal is 2 s sum_j (dx_j / dw)².
    for (t, name) in
        [(11, "f6.bias"), (10, "f6.weight"), (9, "c5.bias"), (8, "c5.weight"), (7, "s4.bias")]
    {
        let ours = ours.get(name).unwrap();
        let mut compared = 0;
        for i in 0..ours.len() {
            if ours[i] == 0.0
                || (t == 10 && i % 7 > 0)
                || (t == 8 && (i % 25 != 12 || i / 400 != i / 25 % 16))
            {
                continue;
            }
            let at = p64[t].1[i];
            let mut x = |w: f64| -> Vec<f64> {
                p64[t].1[i] = w;
                forward(&p64, &image, &codes, scale).a6.iter().map(|a| scaled_tanh(*a)).collect()
            };
            let (up, down) = (x(at + 1e-5), x(at - 1e-5));
            p64[t].1[i] = at;
            let exact: f64 =
                up.iter().zip(&down).map(|(u, d)| 2.0 * scale * ((u - d) / 2e-5).powi(2)).sum();
            // S4's bias is shared by 25 units, but only the one at (2, 2) is connected to C5.
            assert!(
                (exact - f64::from(ours[i])).abs() < 1e-4 * exact + 1e-12,
                "{name} {i}: {} {exact}",
                ours[i]
            );
            compared += 1;
            if compared == 150 {
                break;
            }
        }
        println!("{name}: {compared} compared");
        assert!(compared >= 16);
    }
}

/// Computes tanh, or the scaled tanh.
struct TanhOfSlice<'a>(&'a [f32], &'a mut [f32], bool);
impl WithSimd for TanhOfSlice<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        for at in (0..self.0.len()).step_by(S::LANES) {
            let x = s.load(self.0, at);
            s.store(self.1, at, if self.2 { vector_scaled_tanh(s, x) } else { tanh(s, x) });
        }
    }
}

/// Tests every 61st float of both signs, and special values.
#[test]
fn tanh_over_the_floats() {
    let mut xs: Vec<f32> =
        (0..0x7f80_0000_u32).step_by(61).map(f32::from_bits).filter(|x| *x < 20.0).collect();
    xs.extend([f32::INFINITY, f32::MAX, 1e30, 20.0, 7.8, 7.800001, 0.0]);
    let negative: Vec<f32> = xs.iter().map(|x| -x).collect();
    xs.extend(negative);
    xs.resize(xs.len().next_multiple_of(16), 0.0);
    let mut out = vec![0.0; xs.len()];
    for isa in Isa::available() {
        for scaled in [false, true] {
            isa.run(TanhOfSlice(&xs, &mut out, scaled));
            let mut worst = (0.0, 0.0);
            let mut relative = 0.0_f64;
            for (x, t) in xs.iter().zip(&out) {
                let exact = if scaled { scaled_tanh(f64::from(*x)) } else { f64::from(*x).tanh() };
                let error = (f64::from(*t) - exact).abs();
                if error > worst.0 {
                    worst = (error, *x);
                }
                if x.abs() > 1e-30 {
                    relative = relative.max(error / exact.abs());
                }
                assert!(t.abs() <= if scaled { 1.7159 } else { 1.0 });
            }
            println!(
                "{} {scaled}: {} floats, largest error {:.2e} at {}, relative {relative:.2e}",
                isa.name(),
                xs.len(),
                worst.0,
                worst.1
            );
            assert!(worst.0 < if scaled { 1e-6 } else { 5e-7 });
        }
        let mut nan = [0.0; 16];
        isa.run(TanhOfSlice(&[f32::NAN; 16], &mut nan, false));
        assert!(nan.iter().all(|x| x.is_nan()));
    }
}

#[test]
fn steps_are_gradient_and_update_and_absent_connections_stay_zero() {
    let mut random = RandomNumbers(11);
    let p = parameters(&mut random);
    let codes = codes(10, &mut random);
    let images: Vec<[f32; PIXELS]> = (0..8).map(|_| image(&mut random)).collect();
    let loss = Loss::Discriminative { j: 1.0 };
    let mut ends = vec![];
    for isa in Isa::available() {
        let mut net = PatternNetwork::new(&p, &codes, 0.02, loss).with_isa(isa);
        let curvature = net.curvature_of(images.iter().enumerate().map(|(i, image)| (image, i)));
        let rates = LearningRates::new(&curvature, 5e-4, 0.02);
        assert!(
            0.0 < rates.smallest()
                && rates.smallest() < rates.largest()
                && rates.largest() <= 0.025
        );
        for (label, image) in images.iter().enumerate() {
            let (before, gradient) = (net.parameters(), net.gradient(image, label));
            let loss = net.step(image, label, &rates);
            let penalties =
                PatternNetwork::new(&before, &codes, 0.02, Loss::Discriminative { j: 1.0 })
                    .with_isa(isa)
                    .forward(&mut PatternBuffers::new(), image)
                    .to_vec();
            assert_eq!(loss, net.loss(&penalties, label));
            let after = net.parameters();
            for (((name, b), (_, a)), ((_, g), (_, h))) in
                before.iter().zip(after.iter()).zip(gradient.iter().zip(curvature.iter()))
            {
                for i in 0..b.len() {
                    let expected =
                        f64::from(b[i]) - 5e-4 / (0.02 + f64::from(h[i])) * f64::from(g[i]);
                    assert!(
                        (expected - f64::from(a[i])).abs() < 2e-7,
                        "{name} {i}: {expected} {}",
                        a[i]
                    );
                    if name == "c3.weight" && !c3_connected(i) {
                        assert_eq!((a[i], g[i], h[i]), (0.0, 0.0, 0.0));
                    }
                }
            }
        }
        // A batch of one pattern gives the same result as a step; a larger one has the mean gradient.
        let (mut one, mut two) = (net.clone(), net.clone());
        let mut sum = GradientSum::new();
        two.add_gradient(&mut PatternBuffers::new(), &images[0], 0, &mut sum);
        one.step(&images[0], 0, &rates);
        two.apply(&sum, &rates);
        for ((name, a), (_, b)) in one.parameters().iter().zip(two.parameters().iter()) {
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-7), "{name}");
        }
        sum.clear();
        let mut mean = named(&PatternParameters::zeros());
        for (label, image) in images.iter().enumerate() {
            net.add_gradient(&mut PatternBuffers::new(), image, label, &mut sum);
            for (mean, (_, g)) in mean.iter_mut().zip(net.gradient(image, label).iter()) {
                for (m, g) in mean.1.iter_mut().zip(g) {
                    *m += f64::from(*g) / 8.0;
                }
            }
        }
        compare("mean of a batch", &sum.mean(), &mean, 1e-6);
        // Repeating the steps gives the same bits.
        let mut again = PatternNetwork::new(&p, &codes, 0.02, loss).with_isa(isa);
        let mut first = net.clone();
        again.clone_from(&net);
        for (label, image) in images.iter().enumerate() {
            assert_eq!(first.step(image, label, &rates), again.step(image, label, &rates));
        }
        assert_eq!(first.parameters(), again.parameters());
        ends.push(first.parameters());
    }
    for other in &ends[1..] {
        for ((name, a), (_, b)) in ends[0].iter().zip(other.iter()) {
            let worst = a.iter().zip(b).fold(0.0_f32, |w, (a, b)| w.max((a - b).abs()));
            println!("{name}: instruction sets differ by {worst:.1e} after 16 steps");
            assert!(worst < 1e-5);
        }
    }
}

#[test]
fn what_an_earlier_image_leaves_does_not_matter() {
    let mut random = RandomNumbers(13);
    let net = PatternNetwork::new(
        &parameters(&mut random),
        &codes(10, &mut random),
        0.02,
        Loss::Distance,
    );
    let image = image(&mut random);
    let mut buffers = PatternBuffers::new();
    net.forward(&mut buffers, &[0.7; PIXELS]);
    let found = net.forward(&mut buffers, &image).to_vec();
    assert_eq!(found, net.forward(&mut PatternBuffers::new(), &image));
    let smallest = (0..10).min_by(|a, b| found[*a].total_cmp(&found[*b])).unwrap();
    assert_eq!(buffers.prediction(10), smallest);
}

#[test]
fn penalties_are_those_of_the_plain_forward_pass() {
    let mut random = RandomNumbers(17);
    for classes in [10, 96] {
        let config = ModelConfig { classes, ..ModelConfig::original() };
        let weights = weights(&config, &mut random);
        let image = image(&mut random);
        let input: Vec<f64> = image.iter().map(|x| f64::from(*x)).collect();
        let logits = ForwardPass::new(&weights).unwrap().logits(&input).unwrap();
        for isa in Isa::available() {
            let net = PatternNetwork::of(&weights, Loss::Distance).unwrap().with_isa(isa);
            let mut buffers = PatternBuffers::new();
            for (penalty, logit) in net.forward(&mut buffers, &image).iter().zip(&logits) {
                assert!(
                    (f64::from(*penalty) + logit).abs() < 1e-5 * logit.abs(),
                    "{penalty} {logit}"
                );
            }
        }
    }
}

#[test]
#[should_panic(expected = "no connection")]
fn a_weight_at_an_absent_connection_is_refused() {
    let mut p = PatternParameters::zeros();
    p.get_mut("c3.weight").unwrap()[3 * 25] = 1.0;
    PatternNetwork::new(&p, &[1.0; 84], 1.0, Loss::Distance);
}
