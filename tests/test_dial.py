"""The dial against a model whose answer is known, and the verdict by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
from transformer_lens import HookedTransformer

import sae_lens_signaware as signaware
from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.evaluation.dial import nearest_antipodal_pair
from sae_lens_signaware.evaluation.results import Provenance
from tests.support.models import HOOK, tiny_model_config
from tests.support.saes import D_IN, make_sae

LAST = "blocks.1.hook_resid_post"


def linear_model() -> HookedTransformer:
    """Without a final norm, logits are linear in the last residual stream."""
    cfg = tiny_model_config()
    cfg.normalization_type = None
    return HookedTransformer(cfg)


def signed_sae(hook_name: str = LAST) -> Any:
    sae = make_sae("sa_gsae")
    sae.cfg.metadata.hook_name = hook_name
    return sae


def test_dial_of_a_linear_read_out_is_the_dot_product() -> None:
    model, sae = linear_model(), signed_sae()
    tokens = torch.randint(0, 64, (3, 8))
    dial = signaware.polarity_dial(model, sae, 5, tokens, [1.0, 2.0], logit_tokens=(7, 11))
    direction = sae.W_dec[5] / sae.W_dec[5].norm()
    slope = (direction @ (model.W_U[:, 7] - model.W_U[:, 11])).item()
    assert dial.coefficients.tolist() == [-2.0, -1.0, 0.0, 1.0, 2.0]
    expected = slope * dial.coefficients
    torch.testing.assert_close(dial.effect, expected, rtol=1e-4, atol=1e-5)
    logits = model(tokens)[:, -1]
    assert dial.baseline == pytest.approx((logits[:, 7] - logits[:, 11]).mean().item(), rel=1e-5)
    assert dial.monotone
    assert dial.sign_changing
    assert dial.symmetry == pytest.approx(1.0, abs=1e-3)
    assert dial.direction_cosine == pytest.approx(-1.0)


def test_a_difference_of_logits_is_not_rounded_to_their_dtype() -> None:
    model, sae = linear_model().to(torch.bfloat16), signed_sae()
    tokens = torch.randint(0, 64, (1, 8))
    logits = model(tokens)[0, -1].double()
    differences = logits[7] - logits
    a = int((differences - differences.bfloat16().double()).abs().argmax())
    dial = signaware.polarity_dial(model, sae, 5, tokens, [1.0], logit_tokens=(7, a))
    assert dial.baseline == differences[a].item() != differences[a].bfloat16().item()


def test_token_ids_may_be_of_32_bits() -> None:
    model, sae = HookedTransformer(tiny_model_config()), signed_sae(HOOK)
    tokens = torch.randint(0, 64, (3, 8))
    wide, narrow = (
        signaware.polarity_dial(model, sae, 2, ids, [4.0]) for ids in (tokens, tokens.int())
    )
    assert torch.equal(wide.effect, narrow.effect)


def test_the_order_of_the_coefficients_does_not_matter() -> None:
    model, sae = HookedTransformer(tiny_model_config()), signed_sae(HOOK)
    tokens = torch.randint(0, 64, (3, 8))
    rising, falling = (
        signaware.polarity_dial(model, sae, 2, tokens, sizes) for sizes in ([1.0, 4.0], [4.0, 1.0])
    )
    assert falling.coefficients.tolist() == rising.coefficients.tolist() == [-4, -1, 0, 1, 4]
    of_tensor = signaware.polarity_dial(model, sae, 2, tokens, torch.tensor([1.0, 4.0]))
    assert torch.equal(of_tensor.effect, rising.effect)
    torch.testing.assert_close(falling.effect, rising.effect)


def test_dial_of_the_loss_by_hand() -> None:
    model, sae = HookedTransformer(tiny_model_config()), signed_sae(HOOK)
    tokens = torch.randint(0, 64, (3, 8))
    dial = signaware.polarity_dial(model, sae, 2, tokens, [4.0])
    assert dial.baseline == pytest.approx(model(tokens, return_type="loss").item(), rel=1e-5)
    direction = sae.W_dec[2] / sae.W_dec[2].norm()
    moved = model.run_with_hooks(
        tokens, return_type="loss", fwd_hooks=[(HOOK, lambda x, hook: x - 4.0 * direction)]
    )
    assert dial.effect[0].item() == pytest.approx(moved.item() - dial.baseline, abs=1e-5)
    assert dial.effect[1].item() == 0.0


def test_a_pair_of_plain_latents_is_dialled_by_its_two_directions() -> None:
    model, signed = linear_model(), signed_sae()
    plain = JumpReLUSAE(JumpReLUSAEConfig(d_in=D_IN, d_sae=40))
    plain.cfg.metadata.hook_name = LAST
    axis = signed.W_dec[5].detach()
    with torch.no_grad():
        plain.W_dec[9] = 3 * axis
        plain.W_dec[30] = -axis + 0.2 * torch.randn(D_IN)
    pair = nearest_antipodal_pair(plain, axis)
    assert pair == (9, 30)
    tokens = torch.randint(0, 64, (3, 8))
    args: Any = (tokens, [1.0, 2.0], (7, 11))
    both = signaware.polarity_dial(model, plain, pair, *args)
    one = signaware.polarity_dial(model, signed, 5, *args)
    assert (both.latent_pos, both.latent_neg) == pair
    torch.testing.assert_close(both.effect[3:], one.effect[3:], rtol=1e-4, atol=1e-5)
    read = model.W_U[:, 7] - model.W_U[:, 11]
    minus = plain.W_dec[30] / plain.W_dec[30].norm()
    assert both.effect[0].item() == pytest.approx(2 * (minus @ read).item(), rel=1e-3)
    assert -1 < both.direction_cosine < -0.8


@pytest.mark.parametrize(
    ("effect", "monotone", "sign_changing", "symmetry"),
    [
        ([-2.0, -1.0, 0.0, 1.0, 2.0], True, True, 1.0),
        ([2.0, 1.0, 0.0, 1.0, 2.0], False, False, 0.0),
        ([-1.0, -0.5, 0.0, 1.0, 2.0], True, True, 0.75),
        ([1.0, 1.0, 0.0, 0.0, -1.0], True, False, 0.75),  # it may stay as it is
        ([-1.0, 0.0, 0.0, 1.0, 1.0], True, False, 0.75),
        ([-1.0, 0.5, 0.0, 1.0, 2.0], False, False, 3.5 / 6.0),
    ],
)
def test_verdict_by_hand(
    effect: list[float], monotone: bool, sign_changing: bool, symmetry: float
) -> None:
    dial = signaware.PolarityDial(
        provenance=Provenance(1, {}, {}),
        coefficients=torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]),
        effect=torch.tensor(effect),
        baseline=0.0,
        metric="loss",
        latent_pos=0,
        latent_neg=0,
        direction_cosine=-1.0,
    )
    assert dial.monotone == monotone
    assert dial.sign_changing == sign_changing
    assert dial.symmetry == pytest.approx(symmetry)


def test_dial_reads_back_and_names_wrong_input(tmp_path: Path) -> None:
    model, sae = linear_model(), signed_sae()
    tokens = torch.randint(0, 64, (2, 4))
    dial = signaware.polarity_dial(model, sae, 0, tokens, [1.0])
    dial.write(tmp_path / "dial.json")
    again = signaware.PolarityDial.read(tmp_path / "dial.json")
    torch.testing.assert_close(again.effect, dial.effect)
    assert again.metric == "loss"
    assert again.n_tokens == 8
    assert again.logit_tokens is None
    signaware.polarity_dial(model, sae, 0, tokens, [1.0], (3, 5)).write(tmp_path / "dial.json")
    assert signaware.PolarityDial.read(tmp_path / "dial.json").logit_tokens == (3, 5)
    held = json.loads((tmp_path / "dial.json").read_text())
    del held["logit_tokens"]  # as an earlier version wrote it
    (tmp_path / "dial.json").write_text(json.dumps(held))
    assert signaware.PolarityDial.read(tmp_path / "dial.json").metric == "logit_difference"
    for args, message in (
        ((24, tokens, [1.0]), "latent must be from 0 to 23, got 24"),
        ((0, tokens, []), "coefficients must be numbers above 0"),
        ((0, tokens, [0.0]), "coefficients must be numbers above 0"),
        ((0, tokens, 2), "coefficients must be a list of numbers above 0, got 2"),
        ((0, tokens, None), "coefficients must be a list of numbers above 0, got None"),
        ((0, tokens, [1.0, float("nan")]), r"coefficients must be .*, got \[1.0, nan\]"),
        ((0, tokens, [1.0, float("inf")]), r"coefficients must be .*, got \[1.0, inf\]"),
        ((0, tokens, [1.0], (1, -1)), r"logit_tokens must be two .* 0 to 63, got \(1, -1\)"),
        ((0, tokens, [1.0], (1, 64)), r"logit_tokens must be two .* 0 to 63, got \(1, 64\)"),
        (([0, 1, 2], tokens, [1.0]), r"latent must be .*, got \[0, 1, 2\]"),
        ((0, tokens[:, :1], [1.0]), "at least 2 position"),
        ((0, tokens[:, :0], [1.0], (1, 2)), "at least 1 position"),
        ((0, tokens[:0], [1.0]), r"tokens must be \(prompt, position\) .*, got \(0, 4\)"),
        ((0, tokens[None], [1.0]), r"tokens must be .*, got \(1, 2, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            signaware.polarity_dial(model, sae, *args)


def test_a_pair_may_be_a_list() -> None:
    model, plain = linear_model(), signaware.split_polarities(signed_sae())
    tokens = torch.randint(0, 64, (2, 4))
    pairs: list[Any] = [[0, 30], (0, 30)]
    of_list, of_tuple = (
        signaware.polarity_dial(model, plain, pair, tokens, [1.0]) for pair in pairs
    )
    torch.testing.assert_close(of_list.effect, of_tuple.effect)
    assert (of_list.latent_pos, of_list.latent_neg) == (0, 30)


def test_a_hook_that_the_model_lacks_is_named() -> None:
    sae = signed_sae()
    sae.cfg.metadata.hook_name = "blocks.9.hook_mlp_out"
    with pytest.raises(ValueError, match=r"^hook_name: the model has no hook 'blocks\.9\.hook_mlp"):
        signaware.polarity_dial(linear_model(), sae, 0, torch.randint(0, 64, (2, 4)), [1.0])


def test_a_head_is_dialled_alone_and_all_heads_at_once() -> None:
    model = HookedTransformer(tiny_model_config())  # two heads of 8
    tokens = torch.randint(0, 64, (3, 8))
    hook = "blocks.0.attn.hook_z"

    def effect(change: Any) -> float:
        loss = model.run_with_hooks(tokens, return_type="loss", fwd_hooks=[(hook, change)])
        return (loss - model(tokens, return_type="loss")).item()

    for head in (0, 1, None):
        sae = make_sae("sa_gsae", d_in=8 if head is not None else 16)
        sae.cfg.metadata.hook_name, sae.cfg.metadata.hook_head_index = hook, head
        dial = signaware.polarity_dial(model, sae, 2, tokens, [4.0])
        unit = 4.0 * sae.W_dec[2] / sae.W_dec[2].norm()
        added = torch.zeros(2, 8)
        if head is None:
            added = unit.view(2, 8)
        else:
            added[head] = unit
        assert dial.effect[2].item() == pytest.approx(
            effect(lambda z, hook, a=added: z + a), abs=1e-5
        )
    sae.cfg.metadata.hook_head_index = None
    wrong = make_sae("sa_gsae", d_in=8)
    wrong.cfg.metadata.hook_name = hook
    with pytest.raises(ValueError, match="hook_z must be 8 wide, got 16"):
        signaware.polarity_dial(model, wrong, 2, tokens, [4.0])


@pytest.mark.parametrize(
    ("hook", "head", "message"),
    [
        # as many positions as the SAE is wide: a position could be taken for a head
        (HOOK, 1, "hook_head_index must be null: 'blocks.0.hook_mlp_out' has no heads, got 1"),
        ("blocks.0.attn.hook_z", 2, "hook_head_index must be below 2, got 2"),
        ("blocks.0.attn.hook_z", 0, "activations at blocks.0.attn.hook_z must be 16 wide, got 8"),
    ],
)
def test_a_head_that_is_not_there_is_named(hook: str, head: int, message: str) -> None:
    sae = signed_sae(hook)
    sae.cfg.metadata.hook_head_index = head
    tokens = torch.randint(0, 64, (3, D_IN))
    with pytest.raises(InvalidInputError) as error:
        signaware.polarity_dial(HookedTransformer(tiny_model_config()), sae, 2, tokens, [4.0])
    assert str(error.value) == message


def test_a_difference_of_logits_needs_one_position_alone() -> None:
    model, sae = linear_model(), signed_sae()
    tokens = torch.randint(0, 64, (3, 1))
    dial = signaware.polarity_dial(model, sae, 5, tokens, [1.0], logit_tokens=(7, 11))
    logits = model(tokens)[:, -1]
    assert dial.baseline == pytest.approx((logits[:, 7] - logits[:, 11]).mean().item(), rel=1e-5)


def test_an_axis_of_another_width_is_named() -> None:
    plain = JumpReLUSAE(JumpReLUSAEConfig(d_in=D_IN, d_sae=4))
    for direction in (torch.ones(D_IN + 1), torch.ones(1, D_IN)):
        with pytest.raises(ValueError, match=rf"direction must be \({D_IN},\), one of the decoder"):
            nearest_antipodal_pair(plain, direction)


@pytest.mark.parametrize(
    ("latents", "words"), [((9, 30), "latents 9 (+) and 30 (-): monotone"), ((4, 4), "latent 4: ")]
)
def test_the_table_says_which_latents_and_the_verdict(latents: tuple[int, int], words: str) -> None:
    dial = signaware.PolarityDial(
        provenance=Provenance(1, {}, {}),
        coefficients=torch.tensor([-2.0, 0.0, 2.0]),
        effect=torch.tensor([-1.0, 0.0, 3.0]),
        baseline=0.25,
        metric="loss",
        latent_pos=latents[0],
        latent_neg=latents[1],
        direction_cosine=-1.0,
    )
    table = dial.table()
    assert str(table.title).startswith(words)
    assert "sign-changing, symmetry 0.67; loss 0.2500 with nothing added" in str(table.title)
    assert [list(column.cells) for column in table.columns] == [
        ["-2", "+0", "+2"],
        ["-1.0000", "+0.0000", "+3.0000"],
    ]
