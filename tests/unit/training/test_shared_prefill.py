from __future__ import annotations

import pytest
import torch

from tests.unit.training.families import build_family
from tests.unit.training.toys import draw_picture, make_config
from training.reply import reply_to
from training.score import resolve_verdict, score_images
from training.shared_prefill import Branches, prompt_of, reply_to_all, score_and_reply

QUESTIONS = ["What do you see?", "Is it real?", "Every second column is brighter. So is it fake?"]


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_answers_and_scores_equal_those_of_one_question_at_a_time(family: str) -> None:
    assembly = build_family(family)
    assembly.model.eval()
    prefix = " The image is" if family == "llava" else "The image is"
    verdict = resolve_verdict(make_config(scoring__answer_prefix=prefix).scoring, assembly)
    for seed in range(2):
        image = draw_picture(None, seed).resize((56 + 28 * seed, 84))
        score, replies = score_and_reply(verdict, QUESTIONS, image, assembly, max_tokens=12)
        alone = [reply_to(question, image, assembly, max_tokens=12) for question in QUESTIONS]
        assert replies == alone
        assert score == pytest.approx(score_images([image], verdict, assembly)[0], abs=1e-4)
        assert reply_to_all(QUESTIONS[:1], image, assembly, max_tokens=12) == alone[:1]


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_the_image_goes_through_the_model_once(family: str) -> None:
    assembly = build_family(family)
    assembly.model.eval()
    seen: list[tuple[int, ...]] = []
    hook = assembly.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    prompts = [prompt_of(question, assembly) for question in QUESTIONS]
    with torch.no_grad():
        Branches.read(prompts, draw_picture(None, 1).resize((84, 84)), assembly)
    hook.remove()
    (one, shared), (rows, rest) = seen
    assert (one, rows) == (1, len(QUESTIONS))
    assert rest < max(len(prompt.input_ids) for prompt in prompts)
    assert shared > rest or family == "qwen2_5_vl"
