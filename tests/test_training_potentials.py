"""Wasserstein reweighting of rows of several columns: the step of the weights, classes, copies and loops."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from potential_cases import BOUNDS, POTENTIALS, by_potential, even, new, normal, of, tensors
from torch import nn

from densratio import KLIEP, Wasserstein
from densratio.objectives.row_weights import WeightSet
from densratio.training import Critic, DynamicReweighter, Sliced
from densratio.training.loop.row_batch import RowBatch
from densratio.training.ratio.potential import Estimate, _polyak_move

drawn = settings(max_examples=15, deadline=None)


def saved_and_loaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same_bits(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# ---------------------------------------------------------------- the step of the weights


@given(n=st.integers(2, 30), value=st.floats(0.0, 10.0), chance=st.floats(0.0, 3.0), seed=st.integers(0, 10**6))
@drawn
def test_the_step_is_polyaks_towards_chance_along_the_plane_of_mean_one(n, value, chance, seed):
    grad = np.random.default_rng(seed).normal(size=n)
    along = grad - grad.mean()
    expected = max(value - chance, 0.0) * along / (along @ along)
    move = _polyak_move(Estimate(*(torch.as_tensor(part, dtype=torch.float64) for part in (value, grad, chance))))
    np.testing.assert_allclose(move.numpy(), expected, rtol=1e-9, atol=1e-12)


@by_potential
def test_the_weights_after_a_step_are_the_projected_polyak_step_from_those_before(name):
    x, v, w = normal(30, 3, 0, 0.7), normal(20, 3, 1), torch.linspace(0.0, 2.0, 30)
    potential = POTENTIALS[name](relaxation=0.8)
    for _ in range(5):
        potential.learn(w, x, v)
    feasible, estimate = WeightSet(30, 1.8), potential.between(x, v)
    expected = feasible.project(w.numpy())
    for _ in range(3):
        value, grad, chance = (part.numpy() for part in estimate(torch.as_tensor(expected)))
        along = grad - grad.mean()
        step = 0.8 * max(value - chance, 0.0) / (along @ along)
        expected = feasible.project(expected - step * grad)
    got = potential.step(1.8, 3, w, x, v)
    np.testing.assert_allclose(got.numpy(), expected, atol=2e-5)
    assert not np.allclose(got.numpy(), w.numpy(), atol=1e-2)


@by_potential
def test_weights_do_not_depend_on_the_unit_of_the_rows(name):
    w = {}
    for unit in (1.0, 2.0**40, 2.0**-40):
        reweighter = new(POTENTIALS[name]())
        for seed in range(4):
            reweighter.partial_fit(unit * normal(40, 3, seed, 0.8), unit * normal(30, 3, 50 + seed), torch.arange(40))
        w[unit] = reweighter.weights_
    assert torch.allclose(w[2.0**40], w[1.0], atol=1e-4) and torch.allclose(w[2.0**-40], w[1.0], atol=1e-4)
    assert float(w[1.0].std()) > 0.05


@by_potential
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 12),
    m=st.integers(1, 12),
    d=st.integers(2, 4),
    scale=st.sampled_from([0.0, 1e-30, 1.0, 1e30]),
    decimals=st.sampled_from([0, 6]),
)
@drawn
def test_weights_of_any_finite_rows_are_nonnegative_with_mean_one(name, seed, n, m, d, scale, decimals):
    rng = np.random.default_rng(seed)
    reweighter = new(POTENTIALS[name]())
    for _ in range(4):
        x, v = (torch.as_tensor(scale * np.round(rng.standard_t(1.5, (size, d)), decimals), dtype=torch.float32) for size in (n, m))
        index = torch.as_tensor(rng.permutation(40)[:n])
        w = reweighter.partial_fit(x, v, index).transform(index)
        assert bool(torch.isfinite(w).all()) and float(w.min()) >= 0.0
        assert float(w.mean()) == pytest.approx(1.0, abs=1e-5)


@by_potential
def test_rows_that_are_all_the_same_and_samples_that_are_equal_leave_weights_where_they_are(name):
    potential, v = POTENTIALS[name](), normal(20, 5, 0)
    for source, target in ((normal(1, 5, 1).expand(30, 5), v), (v, v)):
        for _ in range(4):
            potential.learn(even(len(source)), source, target)
        assert torch.allclose(potential.step(BOUNDS, 3, even(len(source)), source, target), even(len(source)), atol=1e-6)


def clusters(n, seed, share, d=2):
    """Rows around 0 and around 6 on the first axis, a share of them around 6, and which is which."""
    is_far = torch.arange(n) < round(share * n)
    return normal(n, d, seed) + 6.0 * is_far[:, None] * torch.eye(d)[0], is_far


@pytest.mark.parametrize(
    # Steps end where the distance is what chance makes of it: here about 0.03 in the weights.
    ("make", "tolerance"),
    [(lambda: Sliced(), 0.05), (lambda: Critic(learning_rate=1e-3), 0.08)],
    ids=["sliced", "critic"],
)
def test_known_weights_of_clusters_are_recovered(make, tolerance):
    x, is_far = clusters(1000, 0, 0.5)
    v, _ = clusters(1000, 1, 0.2)
    reweighter = new(make(), 1000, 1000)
    for _ in range(80):
        reweighter.partial_fit(x, v, torch.arange(1000))
    near, far = reweighter.weights_[~is_far], reweighter.weights_[is_far]
    assert float(near.mean()) == pytest.approx(1.6, abs=tolerance) and float(far.mean()) == pytest.approx(0.4, abs=tolerance)
    assert float(far.max()) < float(near.median())


def test_without_a_shift_the_weights_stay_near_one_in_many_columns():
    reweighter = new(Sliced(), 64, 64)
    for seed in range(10):
        reweighter.partial_fit(normal(64, 30, seed), normal(64, 30, 100 + seed), torch.arange(64))
    # Polyak's step to 0 in place of chance ends at 0.7.
    assert float(reweighter.weights_.std()) < 0.25


# ---------------------------------------------------------------- class by class


def opposite(n, seed, shift):
    """Rows of two classes; the first is shifted one way, the second the other."""
    y = torch.arange(n) % 2
    return normal(n, 2, seed) + shift * (1.0 - 2.0 * y)[:, None] * torch.eye(2)[0], y


@pytest.mark.parametrize("make", [Sliced, lambda: Critic(learning_rate=1e-3, n_pretraining=20)], ids=["sliced", "critic"])
def test_classes_that_are_shifted_in_opposite_ways_get_weights_of_opposite_slope(make):
    x, y = opposite(200, 0, 0.0)
    v, y_val = opposite(100, 1, 1.5)
    reweighter = new(make(), 200, 100, y_train=y, y_val=y_val)
    for _ in range(60):
        reweighter.partial_fit(x, v, torch.arange(200), torch.arange(100))
    w = reweighter.weights_
    assert float(w[y == 0].mean()) == pytest.approx(1.0, abs=1e-5) and float(w.min()) >= 0.0
    slopes = [float(np.corrcoef(w[y == label], x[y == label, 0])[0, 1]) for label in (0, 1)]
    assert slopes[0] > 0.5 and slopes[1] < -0.5
    for label, center in ((0, 1.5), (1, -1.5)):
        shifted = float((w * x[:, 0])[y == label].mean() / w[y == label].mean())
        # The rows reach as far as the target's center but are few there.
        assert abs(shifted - center) < 0.5 * abs(float(x[y == label, 0].mean()) - center)


def test_the_class_wise_weights_carry_the_ratio_of_the_class_frequencies():
    x, y = opposite(60, 0, 0.0)
    v, y_val = normal(40, 2, 1), (torch.arange(40) >= 10).long()
    reweighter = new(Sliced(), 60, 40, y_train=y, y_val=y_val)
    for _ in range(3):
        reweighter.partial_fit(x, v, torch.arange(60), torch.arange(40))
    assert float(reweighter.weights_[y == 0].mean()) == pytest.approx(0.5, abs=1e-5)
    assert float(reweighter.weights_[y == 1].mean()) == pytest.approx(1.5, abs=1e-5)


def test_the_critic_has_an_output_for_each_class_which_is_the_same_whenever_it_is_made():
    x, v = normal(20, 3, 0), normal(20, 3, 1)
    critic, at_once = (Critic(widths=(8,), learning_rate=1e-12) for _ in range(2))
    for label in (0, 2, 1):
        labels = torch.full((20,), label)
        critic.learn(even(20), x, v, labels, labels)
    at_once.learn(even(20), x, v, torch.arange(20) % 3, torch.arange(20) % 3)
    assert critic.network[-1].weight.shape == (3, 8)
    assert torch.allclose(critic.network[-1].weight, at_once.network[-1].weight, atol=1e-9)
    assert critic.first_moment.shape == at_once.first_moment.shape == (3 * 8 + 8 + 3 * 8,)


def test_a_class_that_no_batch_has_shown_leaves_the_outputs_of_the_others_alone():
    x, v = normal(20, 3, 0), normal(20, 3, 1)
    critic = Critic(widths=(8,), betas=(0.0, 0.9))
    critic.learn(even(20), x, v, torch.arange(20) % 3, torch.arange(20) % 3)
    before = critic.network[-1].weight.clone()
    critic.learn(even(20), x, v, torch.ones(20, dtype=torch.int64), torch.ones(20, dtype=torch.int64))
    moved = (critic.network[-1].weight != before).any(dim=1)
    assert moved.tolist() == [False, True, False]


def test_rows_whose_class_is_not_known_teach_nothing():
    x, v, y = normal(20, 3, 0), normal(20, 3, 1), torch.arange(20) % 2
    whole, part = (Critic(widths=(8,)) for _ in range(2))
    hidden = torch.where(torch.arange(20) < 6, -1, y)
    whole.learn(even(20), x, v, hidden, hidden)
    part.learn(even(14), x[6:], v[6:], y[6:], y[6:])
    none = Critic(widths=(8,))
    none.learn(even(20), x, v, torch.full((20,), -1), y)
    assert same_bits(tensors(whole), tensors(part))
    assert int(none.n_updated) == 0 and none.n_batches == 1


# ---------------------------------------------------------------- stop and resume, ranks, generators


def run(reweighter, first, last, by_class):
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        i, j = torch.randperm(40, generator=generator)[:25], torch.randperm(30, generator=generator)[:20]
        # A third class is met in the fourth batch alone.
        told = {"y": i % (2 + (step == 3)), "y_val": j % (2 + (step == 3))} if by_class else {}
        reweighter.partial_fit(normal(25, 3, step, 0.5), normal(20, 3, 500 + step), i, j, **told)


@pytest.mark.parametrize("by_class", [False, True], ids=["all rows", "by class"])
@settings(max_examples=8, deadline=None)
@given(stop=st.integers(0, 8), seed=st.integers(0, 1000))
@by_potential
def test_a_run_that_stops_after_any_batch_and_resumes_is_the_same_to_the_bit(name, by_class, stop, seed):
    straight, before, after = (new(POTENTIALS[name](seed=seed)) for _ in range(3))
    run(straight, 0, 8, by_class)
    run(before, 0, stop, by_class)
    after.load_state_dict(saved_and_loaded(before.state_dict()))
    run(after, stop, 8, by_class)
    assert same_bits(tensors(after), tensors(straight))
    assert not torch.equal(straight.weights_, torch.ones(40))


def test_a_default_critic_is_made_on_loading_and_a_used_one_takes_any_earlier_state():
    straight = new(None)
    run(straight, 0, 3, by_class=True)
    state = saved_and_loaded(straight.state_dict())
    run(straight, 3, 6, by_class=True)
    fresh, used = new(None), new(None)
    run(used, 0, 6, by_class=True)
    for resumed in (fresh, used):
        resumed.load_state_dict(state)
        run(resumed, 3, 6, by_class=True)
        assert same_bits(tensors(resumed), tensors(straight))


@by_potential
def test_equal_batches_and_seeds_give_equal_weights_to_the_bit_as_ranks_need(name):
    one, same, other = (new(POTENTIALS[name](seed=seed)) for seed in (3, 3, 4))
    for reweighter in (one, same, other):
        run(reweighter, 0, 5, by_class=False)
    assert same_bits(tensors(one), tensors(same))
    assert not torch.equal(one.weights_, other.weights_)


@by_potential
def test_the_global_generator_is_neither_read_nor_moved(name):
    results = []
    for state in (1, 2):
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(state)
            before = torch.get_rng_state()
            reweighter = new(POTENTIALS[name]())
            run(reweighter, 0, 4, by_class=True)
            assert torch.equal(torch.get_rng_state(), before)
        results.append(tensors(reweighter))
    assert same_bits(*results)


@by_potential
def test_a_deep_copy_and_a_pickled_copy_go_on_as_the_original_does(name):
    original = new(POTENTIALS[name]())
    run(original, 0, 3, by_class=False)
    file = io.BytesIO()
    torch.save(original, file)
    file.seek(0)
    copies = [copy.deepcopy(original), torch.load(file, weights_only=False)]
    for reweighter in (original, *copies):
        run(reweighter, 3, 5, by_class=False)
    assert all(same_bits(tensors(one), tensors(original)) for one in copies)


# ---------------------------------------------------------------- inside a training loop


@by_potential
def test_no_gradient_reaches_the_rows_of_the_loop_or_stays_in_the_critic(name):
    leaf = normal(40, 3, 0, 1.0).requires_grad_()
    features = 2.0 * leaf
    reweighter = new(POTENTIALS[name]())
    for _ in range(4):
        w = reweighter.partial_fit(features, normal(30, 3, 1), torch.arange(40)).transform(torch.arange(40))
    (w * features.sum(1)).sum().backward()
    assert torch.allclose(leaf.grad, 2.0 * w[:, None].expand(40, 3))
    assert not w.requires_grad and not any(p.requires_grad or p.grad is not None for p in reweighter.parameters())


@by_potential
def test_autocast_and_inference_mode_of_the_loop_do_not_reach_the_estimate(name):
    plain, cast = new(POTENTIALS[name]()), new(POTENTIALS[name]())
    for seed in range(4):
        rows = normal(40, 3, seed, 0.5), normal(30, 3, 50 + seed)
        plain.partial_fit(*rows, torch.arange(40))
        with torch.inference_mode():
            val = rows[1].clone()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast.partial_fit(rows[0], val, torch.arange(40))
    assert same_bits(tensors(plain), tensors(cast)) and not torch.equal(plain.weights_, torch.ones(40))


@by_potential
def test_a_step_runs_on_meta_tensors_so_nothing_in_it_waits_for_a_gpu(name):
    reweighter = new(POTENTIALS[name](), n_train=8, n_val=8).to("meta")
    train, val = (torch.empty(n, 3, device="meta") for n in (6, 5))
    for _ in range(4):
        reweighter.partial_fit(train, val, torch.empty(6, dtype=torch.int64, device="meta"))
    assert reweighter.weights_.device.type == "meta" and of(reweighter).is_ready


def test_a_batch_that_is_not_usable_leaves_the_critic_as_it_was():
    critic, untouched = (Critic(widths=(8,)) for _ in range(2))
    for one in (critic, untouched):
        one.learn(even(20), normal(20, 3, 0), normal(10, 3, 1))
    before = tensors(critic)
    bad = normal(20, 3, 2)
    bad[3, 1] = float("nan")
    # NaN, or an index out of range beside rows that are fine.
    for rows in (bad, normal(20, 3, 2)):
        critic.learn(even(20), rows, normal(10, 3, 3), rows=RowBatch.held(torch.arange(20), torch.tensor(False)))
        assert same_bits(tensors(critic), before)
    # Finite rows whose gradient overflows are held back too.
    critic.learn(even(20), torch.full((20, 3), 3e38) * torch.tensor([1.0, -1.0, 1.0]), -torch.full((10, 3), 3e38))
    assert same_bits(tensors(critic), before)
    untouched.n_batches = critic.n_batches
    for one in (critic, untouched):
        one.learn(even(20), normal(20, 3, 4), normal(10, 3, 5))
    assert same_bits(tensors(critic), tensors(untouched)) and not same_bits(tensors(critic), before)


@by_potential
def test_a_bad_batch_on_the_cpu_raises_before_the_potential_meets_it(name):
    reweighter = new(POTENTIALS[name]())
    run(reweighter, 0, 4, by_class=False)
    before, met = tensors(reweighter), of(reweighter).n_batches
    bad = normal(40, 3, 0)
    bad[7] = float("inf")
    with pytest.raises(ValueError, match=r"training rows \[7\]"):
        reweighter.partial_fit(bad, normal(30, 3, 1), torch.arange(40))
    assert same_bits(tensors(reweighter), before) and of(reweighter).n_batches == met


@pytest.mark.parametrize("by_class", [False, True])
@by_potential
def test_a_hidden_layer_is_compared_in_the_one_line_and_with_a_bank(name, by_class):
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
    params = {"layer": "1"} if by_class else {"transformation": lambda prediction, label, losses: prediction.detach()}
    reweighter = new(POTENTIALS[name](), val_refresh=5, **params)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        i, j = torch.randperm(40, generator=generator)[:20], torch.randperm(30, generator=generator)
        x, x_val = normal(20, 2, seed, 0.5), normal(30, 2, 50 + seed)
        loss = reweighter.weighted_loss(model, (x, i % 2, i), (x_val, j % 2, j))
        loss.backward()
    assert of(reweighter).n_batches == 5 and bool(torch.isfinite(loss))
    assert not torch.equal(reweighter.weights_, torch.ones(40))


# ---------------------------------------------------------------- what a person gives


def test_names_and_instances_are_taken_and_the_critic_is_the_default_of_several_columns():
    assert isinstance(of(new("critic")), Critic) and isinstance(of(new("sliced")), Sliced)
    mine = Sliced(3)
    assert of(new(mine)) is mine
    default = new(None)
    assert of(default) is None
    default.partial_fit(normal(40, 2, 0), normal(30, 2, 1), torch.arange(40))
    assert isinstance(of(default), Critic)


def test_one_column_has_the_closed_form_unless_a_potential_is_asked_for():
    plain, given_one = new(None), new(Sliced())
    for seed in range(3):
        for reweighter in (plain, given_one):
            reweighter.partial_fit(normal(40, 1, seed, 0.5)[:, 0], normal(30, 1, 50 + seed), torch.arange(40))
    assert of(plain) is None and of(given_one).n_batches == 3


@given(step_size=st.floats(1e-3, 0.3), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a_fixed_step_on_losses_is_the_projected_step_up_the_critic(step_size, seed):
    critic = Critic(widths=(8,), n_pretraining=0, step_size=step_size, learning_rate=1e-2)
    reweighter = new(critic)
    x, v = normal(40, 1, seed, 0.5), normal(30, 1, 100 + seed)
    reweighter.partial_fit(x[:, 0], v[:, 0], torch.arange(40))
    f, f_target = (critic._units[1] * critic.network(critic._scaled(rows))[:, 0] for rows in (x, v))
    # -f is as good a critic as f: the one is stepped up whose mean is higher on the target.
    up = 1.0 + step_size * torch.sign(f_target.mean() - f.mean()) * f
    expected = WeightSet(40, BOUNDS).project(up.detach().double().numpy())
    np.testing.assert_allclose(reweighter.weights_, expected, atol=1e-4)


@pytest.mark.parametrize("step_size", [0.0, -1.0, float("nan"), float("inf"), True, "long"])
def test_a_step_size_that_is_no_positive_number_is_refused(step_size):
    with pytest.raises(ValueError, match=r"step_size must be a number in \(0, inf\)"):
        Critic(step_size=step_size)


def test_a_network_of_ones_own_is_trained_and_saved_with_the_weights():
    def make():
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(0)
            return new(Critic(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), n_pretraining=1))

    straight, before, after = make(), make(), make()
    start = tensors(straight)
    run(straight, 0, 6, by_class=True)
    run(before, 0, 3, by_class=True)
    after.load_state_dict(saved_and_loaded(before.state_dict()))
    run(after, 3, 6, by_class=True)
    assert same_bits(tensors(after), tensors(straight))
    key = "steps.0.potential.network.0.weight"
    assert not torch.equal(start[key], tensors(straight)[key])


@pytest.mark.parametrize("ratio", ["kliep", "kmm", KLIEP()], ids=str)
def test_a_potential_with_another_divergence_is_refused_by_name(ratio):
    with pytest.raises(ValueError, match=r"Wasserstein distance, and (KLIEP|KMM) is another divergence"):
        DynamicReweighter(ratio, 10, 10, potential="sliced")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: new("network"), r"one of \['critic', 'sliced'\].*got 'network'"),
        (lambda: Sliced(0), "n_directions must be an int >= 1; got 0"),
        (lambda: Sliced(2.5), "n_directions must be an int >= 1; got 2.5"),
        (lambda: Sliced(relaxation=2.0), r"relaxation must be a number in \(0, 2\).*got 2.0"),
        (lambda: Critic(relaxation=0.0), r"relaxation must be a number in \(0, 2\).*got 0.0"),
        (lambda: Critic(seed=-1), "seed must be an int >= 0; got -1"),
        (lambda: Critic(widths=()), r"widths must be at least one int >= 1.*got \(\)"),
        (lambda: Critic(penalty=-1.0), r"penalty must be a number in \[0, inf\); got -1.0"),
        (lambda: Critic(learning_rate=0.0), r"learning_rate must be a number in \(0, inf\); got 0.0"),
        (lambda: Critic(betas=(0.9, 1.0)), r"betas must be a number in \[0, 1\), both of them; got 1.0"),
        (lambda: Critic(n_updates=0), "n_updates must be an int >= 1; got 0"),
        (lambda: Critic(n_pretraining=-1), "n_pretraining must be an int >= 0; got -1"),
        (lambda: Critic(nn.Sequential(nn.Linear(2, 2), nn.Dropout())), r"neither dropout nor batch normalization.*\['1'\]"),
        (lambda: Critic(nn.ReLU()), "no parameters"),
        (lambda: Critic().between(normal(3, 2, 0), normal(3, 2, 1)), "call learn first"),
    ],
)
def test_bad_parameters_are_told_with_what_came(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_rows_of_another_width_and_classes_beyond_ones_own_network_are_told():
    critic = Critic(widths=(8,))
    critic.learn(even(6), normal(6, 3, 0), normal(6, 3, 1))
    before = tensors(critic)
    with pytest.raises(ValueError, match="rows of 3 columns; this batch has 4"):
        critic.learn(even(6), normal(6, 4, 0), normal(6, 4, 1))
    assert same_bits(tensors(critic), before) and critic.n_batches == 1
    own = Critic(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="2 outputs for 3 classes"):
        own.learn(even(6), normal(6, 3, 0), normal(6, 3, 1), torch.arange(6) % 3, torch.arange(6) % 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: new("sliced", to_convergence=True),
        lambda: DynamicReweighter(Wasserstein(solver="projected_gradient"), 40, 30, potential="sliced", warmup_epochs=0),
    ],
    ids=["to_convergence", "solver"],
)
def test_what_several_columns_cannot_have_is_told_with_the_first_batch(make):
    reweighter = make()
    with pytest.raises(ValueError, match=r"With Wasserstein .* need rows of one column.*got 2 columns"):
        reweighter.partial_fit(normal(40, 2, 0), normal(30, 2, 1), torch.arange(40))
    assert torch.equal(reweighter.weights_, torch.ones(40))
