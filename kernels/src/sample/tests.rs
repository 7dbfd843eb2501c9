use super::*;
use crate::cuda::devices;
use crate::gemm::tests::{as_cuda, count_launches, software_gpu};
use approx::{abs_diff_eq, assert_abs_diff_eq};
use codelsi_engine::Label;

/// Probabilities 0.4, 0.3, 0.2, 0.1 of tokens 2, 0, 3, 1.
const P: [f32; 4] = [0.3, 0.1, 0.4, 0.2];

fn run_on(device: &Device, logits: &[f32], params: RowSamplingParams) -> Result<SampledToken> {
    let logits = device.tensor(Label::Activations, [1, logits.len()], logits)?;
    Ok(sample(&Ctx::inference(device), &logits, &[params])?[0])
}

fn run(logits: &[f32], params: RowSamplingParams) -> Result<SampledToken> {
    run_on(&Device::cpu(), logits, params)
}

/// Returns the frequency of each token of `P` in 4,000 draws.
fn frequencies(params: RowSamplingParams) -> [f64; 4] {
    let logits = P.map(f32::ln);
    let mut counts = [0.0; 4];
    for step in 0..4000 {
        let key = RngKey { seed: 9, step, site: 0 };
        let choice = run(&logits, RowSamplingParams { temperature: 1.0, key, ..params }).unwrap();
        counts[choice.token as usize] += 1.0;
        assert_abs_diff_eq!(choice.logprob, logits[choice.token as usize], epsilon = 1e-6);
    }
    counts.map(|n| n / 4000.0)
}

/// Asserts frequencies to four standard errors over 4,000 draws; a token that is filtered out never occurs.
fn assert_drawn_as(params: RowSamplingParams, expected: [f64; 4]) {
    let seen = frequencies(params);
    for (seen, p) in seen.into_iter().zip(expected) {
        assert!(
            abs_diff_eq!(seen, p, epsilon = 4.0 * (p * (1.0 - p) / 4000.0).sqrt()),
            "{seen}, expected {p}: {params:?}"
        );
    }
}

#[test]
fn each_filter_keeps_exactly_its_tokens() {
    let all = RowSamplingParams::default();
    assert_drawn_as(all, [0.3, 0.1, 0.4, 0.2]);
    assert_drawn_as(RowSamplingParams { top_k: 2, ..all }, [3.0 / 7.0, 0.0, 4.0 / 7.0, 0.0]);
    assert_drawn_as(RowSamplingParams { top_k: 9, ..all }, [0.3, 0.1, 0.4, 0.2]);
    // 0.4 + 0.3 reaches 0.69, not 0.71.
    assert_drawn_as(RowSamplingParams { top_p: 0.69, ..all }, [3.0 / 7.0, 0.0, 4.0 / 7.0, 0.0]);
    assert_drawn_as(RowSamplingParams { top_p: 0.71, ..all }, [3.0 / 9.0, 0.0, 4.0 / 9.0, 2.0 / 9.0]);
    assert_drawn_as(RowSamplingParams { top_p: 1e-6, ..all }, [0.0, 0.0, 1.0, 0.0]);
    // top-p counts what top-k left: 4/7 reaches 0.5.
    assert_drawn_as(RowSamplingParams { top_k: 2, top_p: 0.5, ..all }, [0.0, 0.0, 1.0, 0.0]);
    // 0.2 is just half of 0.4.
    assert_drawn_as(RowSamplingParams { min_p: 0.49, ..all }, [3.0 / 9.0, 0.0, 4.0 / 9.0, 2.0 / 9.0]);
    assert_drawn_as(RowSamplingParams { min_p: 0.51, ..all }, [3.0 / 7.0, 0.0, 4.0 / 7.0, 0.0]);
}

#[test]
fn temperature_sharpens() {
    // Squares of P, normalized.
    let logits = P.map(f32::ln);
    let draws = (0..4000).map(|step| {
        let key = RngKey { seed: 3, step, site: 0 };
        run(&logits, RowSamplingParams { temperature: 0.5, key, ..RowSamplingParams::default() })
            .unwrap()
            .token
    });
    let share = draws.filter(|&token| token == 2).count() as f64 / 4000.0;
    assert_abs_diff_eq!(share, 0.16 / 0.30, epsilon = 0.032);
    let tiny = RowSamplingParams { temperature: 1e-30, ..RowSamplingParams::default() };
    assert_eq!(run(&logits, tiny).unwrap().token, 2);
}

#[test]
fn greedy_takes_the_lowest_of_equal_tokens() {
    for device in devices() {
        let token = |params| run_on(&device, &[1.0, 3.0, 3.0, 2.0], params).unwrap().token;
        assert_eq!(token(RowSamplingParams::default()), 1);
        assert_eq!(
            token(RowSamplingParams { temperature: 1.0, top_k: 1, ..RowSamplingParams::default() }),
            1
        );
    }
}

/// Logits of few distinct values, so that the cuts of the filters fall among equal logits.
#[test]
fn a_gpu_draws_the_cpu_s_tokens_among_equals() {
    let logits: Vec<f32> = (0..100 * 40).map(|i| ((i * 7919) % 5) as f32 * 0.5).collect();
    let filters = [
        RowSamplingParams { top_k: 17, ..RowSamplingParams::default() },
        RowSamplingParams { top_p: 0.6, ..RowSamplingParams::default() },
        RowSamplingParams { top_k: 50, top_p: 0.3, min_p: 0.5, ..RowSamplingParams::default() },
        RowSamplingParams { min_p: 0.9, ..RowSamplingParams::default() },
        RowSamplingParams::default(),
    ];
    let params: Vec<RowSamplingParams> = (0..100)
        .map(|row| RowSamplingParams {
            temperature: 0.9,
            key: RngKey { seed: 5, step: row as u32, site: 2 },
            ..filters[row % filters.len()]
        })
        .collect();
    let tokens = devices().into_iter().map(|device| {
        let logits = device.tensor(Label::Activations, [100, 40], &logits).unwrap();
        let choices = sample(&Ctx::inference(&device), &logits, &params).unwrap();
        choices.into_iter().map(|c| c.token).collect::<Vec<_>>()
    });
    let tokens: Vec<_> = tokens.collect();
    assert!(tokens.iter().all(|t| *t == tokens[0]), "{tokens:?}");
}

/// Rows of distinct logits, of seven, and of one, which no digit of a key divides.
#[test]
fn any_filters_read_a_row_at_most_eight_times_and_draw_the_cpu_s_token() {
    let Some(device) = software_gpu() else { return };
    let all = RowSamplingParams { temperature: 0.9, ..RowSamplingParams::default() };
    let previous = &[5, 31_999, 17, 5];
    let filters = [
        RowSamplingParams::default(),
        all,
        RowSamplingParams { min_p: 0.3, repetition_penalty: 1.2, previous, ..all },
        RowSamplingParams { top_k: 50, ..all },
        RowSamplingParams { top_k: 20_000, top_p: 0.9, ..all },
        RowSamplingParams { top_k: 20_000, top_p: 0.7, min_p: 0.1, repetition_penalty: 1.2, previous, ..all },
    ];
    for (vocab, levels) in [32_016, 151_936].into_iter().flat_map(|v| [(v, v), (v, 7), (v, 1)]) {
        let logits: Vec<f32> =
            (0..vocab).map(|i| (i * 7919 % levels) as f32 * (12.0 / levels as f32)).collect();
        for (step, filters) in (0..).zip(filters) {
            let params = RowSamplingParams { key: RngKey { seed: 3, step, site: 0 }, ..filters };
            let mut drawn = None;
            let draw = || drawn = Some(run_on(&device, &logits, params).unwrap().token);
            let launches = count_launches(as_cuda(&device), draw);
            let read: u64 = launches.iter().map(|launch| launch.counters.global_loads.bytes).sum();
            assert!(
                read <= 8 * 4 * vocab as u64,
                "{vocab} tokens of {levels} values: {read} bytes, {params:?}"
            );
            assert_eq!(
                drawn,
                Some(run(&logits, params).unwrap().token),
                "{vocab} of {levels} values: {params:?}"
            );
        }
    }
}

/// A penalty below 1 raises the largest logits beyond all numbers.
#[test]
fn an_infinite_score_is_taken() {
    for device in devices() {
        let params = RowSamplingParams {
            temperature: 0.5,
            repetition_penalty: 0.5,
            previous: &[1],
            ..RowSamplingParams::default()
        };
        assert_eq!(run_on(&device, &[1.0, 3e38, 3e38], params).unwrap().token, 1);
    }
}

#[test]
fn repetition_is_penalized_once_a_token_and_towards_less_likely() {
    let penalized = |logits: &[f32], previous: &[i32]| {
        run(logits, RowSamplingParams { repetition_penalty: 2.0, previous, ..RowSamplingParams::default() })
            .unwrap()
    };
    assert_eq!(penalized(&[4.0, 3.0], &[0]).token, 1);
    // Twice 4 / 2 / 2 would fall below 1.5.
    assert_eq!(penalized(&[4.0, 1.5], &[0, 0]).token, 0);
    assert_eq!(penalized(&[-1.0, -1.5], &[0]).token, 1);
    // The log-probability is that of the logits as given.
    let logprob = penalized(&[4.0, 3.0], &[0]).logprob as f64;
    assert_abs_diff_eq!(logprob, -(1.0 + 1f64.exp()).ln(), epsilon = 1e-6);
}

#[test]
fn a_frequency_penalty_counts_generated_tokens_and_a_presence_penalty_does_not() {
    for device in devices() {
        // The first two are the prompt's.
        let previous = &[1, 2, 0, 3, 0, 0];
        let token = |logits: &[f32], repetition_penalty, frequency_penalty, presence_penalty| {
            let penalties = RowSamplingParams {
                repetition_penalty,
                frequency_penalty,
                presence_penalty,
                previous,
                prompt_len: 2,
                ..RowSamplingParams::default()
            };
            run_on(&device, logits, penalties).unwrap().token
        };
        // Three times 0.5 from token 0: 2.5 to 2.6 of one that was not generated, or to 2.4.
        assert_eq!(token(&[4.0, 2.6, 0.0, 0.0, 0.0], 1.0, 0.5, 0.0), 1);
        assert_eq!(token(&[4.0, 2.4, 0.0, 0.0, 0.0], 1.0, 0.5, 0.0), 0);
        assert_eq!(token(&[4.0, 0.0, 0.0, 3.2, 2.6], 1.0, 0.5, 0.0), 3);
        // Once 0.5, however often; not from tokens of the prompt alone.
        assert_eq!(token(&[4.0, 3.4, 0.0, 0.0, 0.0], 1.0, 0.0, 0.5), 0);
        assert_eq!(token(&[4.0, 3.6, 0.0, 0.0, 0.0], 1.0, 0.0, 0.5), 1);
        assert_eq!(token(&[4.0, 0.0, 3.6, 4.0, 0.0], 1.0, 0.0, 0.5), 2);
        // Both together: 4 − 3·0.25 − 0.5 = 2.75.
        assert_eq!(token(&[4.0, 0.0, 0.0, 0.0, 2.7], 1.0, 0.25, 0.5), 0);
        assert_eq!(token(&[4.0, 0.0, 0.0, 0.0, 2.8], 1.0, 0.25, 0.5), 4);
        // A negative one encourages; one below the logit makes it negative.
        assert_eq!(token(&[1.0, 2.0, 0.0, 0.0, 0.0], 1.0, -0.5, 0.0), 0);
        assert_eq!(token(&[1.0, -1.2, -1.2, -1.2, -0.4], 1.0, 0.5, 0.0), 4);
        // The repetition penalty comes first: 4 / 2 − 1 = 1, not (4 − 1) / 2 = 1.5; it counts tokens of the prompt.
        assert_eq!(token(&[4.0, 0.0, 0.0, 0.0, 1.2], 2.0, 0.0, 1.0), 4);
        assert_eq!(token(&[0.0, 0.0, 4.0, 0.0, 1.9], 2.0, 0.0, 1.0), 2);
    }
}

/// A penalty is a finite number, and so is what it takes: a token that cannot be drawn stays one.
#[test]
fn penalties_beyond_all_numbers_make_no_nan() {
    for device in devices() {
        for (sign, expected) in [(1.0, 2), (-1.0, 0)] {
            let params = RowSamplingParams {
                temperature: 1.0,
                repetition_penalty: 1e-30,
                frequency_penalty: sign * 3e38,
                presence_penalty: sign * 3e38,
                previous: &[0, 0, 0, 1, 1],
                ..RowSamplingParams::default()
            };
            let chosen = run_on(&device, &[1.0, f32::NEG_INFINITY, 0.5], params).unwrap();
            assert_eq!(chosen.token, expected, "{sign}");
            assert!(chosen.logprob.is_finite(), "{sign}: {chosen:?}");
        }
    }
}

/// Every token is generated up to 4,096 times, in rows that differ in everything.
#[test]
fn a_gpu_draws_the_cpu_s_tokens_after_many_repeats() {
    const ROWS: usize = 24;
    let previous: Vec<i32> = (0..20_000).map(|i| if i % 5 == 0 { 7 } else { i * i % 61 }).collect();
    let logits: Vec<f32> = (0..ROWS * 200).map(|i| ((i * 7919) % 1013) as f32 * 0.01).collect();
    let row = |row: usize| RowSamplingParams {
        temperature: [0.0, 0.7, 1.3][row % 3],
        top_p: [1.0, 0.9][row % 2],
        repetition_penalty: [1.0, 1.1, 0.9, 1.0][row % 4],
        frequency_penalty: [0.003, 0.0007, -0.0003, 0.0, 1.1][row % 5],
        presence_penalty: [0.1, -0.7, 0.0][row % 3],
        previous: &previous[row * 100..],
        prompt_len: row * 70,
        key: RngKey { seed: 11, step: row as u32, site: 0 },
        ..RowSamplingParams::default()
    };
    let params: Vec<RowSamplingParams> = (0..ROWS).map(row).collect();
    let tokens = devices().into_iter().map(|device| {
        let logits = device.tensor(Label::Activations, [ROWS, 200], &logits).unwrap();
        let choices = sample(&Ctx::inference(&device), &logits, &params).unwrap();
        choices.into_iter().map(|c| c.token).collect::<Vec<_>>()
    });
    let tokens: Vec<_> = tokens.collect();
    assert!(tokens.iter().all(|t| *t == tokens[0]), "{tokens:?}");
}

#[test]
fn penalties_of_nothing_change_no_bit() {
    let previous: Vec<i32> = (0..300).map(|i| i % 17).collect();
    for step in 0..50 {
        let logits: Vec<f32> = (0..40).map(|i| ((i * 37 + step as usize) % 41) as f32 * 0.3 - 6.0).collect();
        let key = RngKey { seed: 1, step, site: 0 };
        let plain = RowSamplingParams { temperature: 0.9, key, ..RowSamplingParams::default() };
        let zero = RowSamplingParams { previous: &previous, prompt_len: 9, ..plain };
        assert_eq!(run(&logits, zero).unwrap(), run(&logits, plain).unwrap());
        let penalized = RowSamplingParams { frequency_penalty: 1.0, presence_penalty: 2.0, ..zero };
        let other = RowSamplingParams { prompt_len: previous.len(), ..penalized };
        assert_eq!(run(&logits, other).unwrap(), run(&logits, plain).unwrap(), "nothing was generated");
    }
}

#[test]
fn a_row_s_choice_does_not_depend_on_the_rows_beside_it() {
    let device = Device::cpu();
    let rows: Vec<f32> = (0..5 * 100).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
    let params: Vec<RowSamplingParams> = (0..5)
        .map(|seed| RowSamplingParams {
            temperature: 0.8,
            top_p: 0.9,
            key: RngKey { seed, step: 7, site: 0 },
            ..RowSamplingParams::default()
        })
        .collect();
    let logits = device.tensor(Label::Activations, [5, 100], &rows).unwrap();
    let batched = sample(&Ctx::inference(&device), &logits, &params).unwrap();
    for (row, choice) in batched.iter().enumerate() {
        assert_eq!(run(&rows[row * 100..][..100], params[row]).unwrap(), *choice);
    }
}

#[test]
fn bad_logits_and_parameters_are_named() {
    devices().iter().for_each(bad_input_is_named);
}

fn bad_input_is_named(device: &Device) {
    let message = |logits: &[f32], params| run_on(device, logits, params).unwrap_err().to_string();
    let greedy = RowSamplingParams::default();
    assert_eq!(message(&[0.0, f32::NAN], greedy), "sample: row 0: the logit of token 1 is NaN");
    assert_eq!(message(&[f32::INFINITY, 0.0], greedy), "sample: row 0: the logit of token 0 is inf");
    assert_eq!(message(&[f32::NEG_INFINITY; 2], greedy), "sample: row 0: every logit is -inf");
    assert!(run_on(device, &[f32::NEG_INFINITY, 0.0], greedy).is_ok());
    let hot = RowSamplingParams { temperature: -1.0, ..greedy };
    assert_eq!(message(&[0.0], hot), "sample: row 0: temperature -1 must be 0 or more");
    let none = RowSamplingParams { top_p: 0.0, ..greedy };
    assert_eq!(message(&[0.0], none), "sample: row 0: top_p 0 must be above 0 and at most 1");
    let foreign = RowSamplingParams { previous: &[2], ..greedy };
    assert_eq!(message(&[0.0], foreign), "sample: row 0: previous token 2 is outside the vocabulary of 1");
    let endless = RowSamplingParams { frequency_penalty: f32::INFINITY, ..greedy };
    assert_eq!(message(&[0.0], endless), "sample: row 0: frequency_penalty inf must be finite");
    let nothing = RowSamplingParams { presence_penalty: f32::NAN, ..greedy };
    assert_eq!(message(&[0.0], nothing), "sample: row 0: presence_penalty NaN must be finite");
    let long = RowSamplingParams { previous: &[0], prompt_len: 2, ..greedy };
    assert_eq!(message(&[0.0], long), "sample: row 0: 2 of 1 previous tokens cannot be the prompt's");
}

#[test]
fn planning_chooses_nothing() {
    let device = Device::plan();
    let logits = device.empty(Label::Activations, [2, 5], DType::BF16);
    let params = [RowSamplingParams::default(); 2];
    let choices = sample(&Ctx::inference(&device), &logits, &params).unwrap();
    assert_eq!(choices, [SampledToken::default(); 2]);
    // Two words of working memory a token, as on the CPU; parameters and choices.
    assert_eq!(
        device.ledger().usage().at_peak_of(Label::Scratch),
        2 * 5 * 8 + 2 * 4 * (PARAM_WORDS + CHOICE_WORDS)
    );
}

/// The tensors of choices and of previous tokens may be larger than the batch needs.
#[test]
fn there_may_be_more_room_than_rows_and_previous_tokens() {
    for device in devices() {
        let cx = Ctx::inference(&device);
        let ints = |shape: &[usize], words: &[i32]| device.tensor(Label::Scratch, shape, words).unwrap();
        let logits = device.tensor(Label::Activations, [2, 2], &[4.0f32, 3.0, 4.0, 3.0]).unwrap();
        let penalized =
            RowSamplingParams { repetition_penalty: 2.0, previous: &[0], ..RowSamplingParams::default() };
        let mut words = PackedParams::new(&[RowSamplingParams::default(), penalized], 2).unwrap();
        let mut choices = device.zeros(Label::Scratch, [3, CHOICE_WORDS], DType::I32);
        let previous = ints(&[4], &[words.previous[0], -1, -1, -1]);
        draw(&cx, &mut choices, &logits, &ints(&[2, PARAM_WORDS], &words.params), &previous).unwrap();
        let sampled = read(&cx, &choices, 2, 2).unwrap();
        let tokens: Vec<i32> = sampled.into_iter().map(|choice| choice.unwrap().token).collect();
        assert_eq!(tokens, [0, 1]);
        let small = &mut device.zeros(Label::Scratch, [1, CHOICE_WORDS], DType::I32);
        let error =
            draw(&cx, small, &logits, &ints(&[2, PARAM_WORDS], &words.params), &previous).unwrap_err();
        assert!(error.to_string().contains("do not fit 2 rows"), "{error}");
        if let Device::Cuda(_) = device {
            // The last of the second row's previous tokens: no token, and none at all.
            for last in [2, 5] {
                words.params[PARAM_WORDS + 9] = last;
                let params = ints(&[2, PARAM_WORDS], &words.params);
                let error = draw(&cx, &mut choices, &logits, &params, &previous).unwrap_err().to_string();
                assert!(error.contains("trap"), "{error}");
            }
        }
    }
}

/// The planning device charges the working memory that the CPU takes.
#[test]
fn the_plan_has_the_working_memory_of_the_cpu() {
    let peak = |device: Device| {
        let logits = device.empty(Label::Logits, [3, 1000], DType::F32);
        let ints = |rows: usize, columns: usize| device.empty(Label::Scratch, [rows, columns], DType::I32);
        let (mut choices, params) = (ints(3, CHOICE_WORDS), ints(3, PARAM_WORDS));
        // On the CPU rows without a meaning may be refused; their memory has been taken by then.
        let _ = draw(&Ctx::inference(&device), &mut choices, &logits, &params, &ints(1, 1));
        device.ledger().usage().peak
    };
    assert_eq!(peak(Device::plan()), peak(Device::cpu()));
}
