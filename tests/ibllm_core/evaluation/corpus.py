"""Captions, and what COCO's own tools say of them.

Golden figures: ``pycocoevalcap`` 1.2 (PTBTokenizer with Java, ``Bleu(4)``, ``Cider()``) over CAPTIONS, whose first text
is the caption and whose others are its references.
"""

from __future__ import annotations

from ibllm_core.evaluation.words import words_of

CAPTIONS = [
    [
        "A grey cat sleeps on a red mat.",
        "A cat is sleeping on the red mat.",
        "A grey cat sleeps on a mat, near the door.",
        "The cat's asleep!",
    ],
    ["two dogs run through the snow", "Two dogs are running through deep snow.", "A pair of dogs playing in the snow"],
    [
        "A man rides a bicycle down the street.",
        "A man on a bike rides down a city street.",
        "A cyclist rides along the street; it's raining.",
        "a man riding a bicycle down the street",
        "Somebody cycles past a row of parked cars.",
        "The street is wet, and a man rides a bicycle.",
    ],
    ["a a a a", "A plate of food with a fork on a table.", "The food on the plate doesn't look fresh."],
    [
        "A woman holding an umbrella stands at the bus stop and waits for the next bus to come",
        "A woman waits at a bus stop.",
        "A woman with an umbrella stands at the bus stop.",
    ],
    ["", "An empty room with one window.", "A room"],
    [
        "A well-known clock tower above the old town",
        "The well-known clock-tower rises above the old town.",
        "a tall clock tower, built in 1872, above the town",
    ],
    [
        "A boy isn't wearing a t-shirt at the beach",
        "A boy without a t-shirt plays at the beach.",
        "The boy isn't wearing shoes on the beach",
        "Children's toys lie beside a boy on the sand.",
    ],
]
BLEU = [0.8387096773922997, 0.709384103584309, 0.5940876910041201, 0.5077825703022751]
CIDER = [
    2.782225850646793,
    1.7482516925369571,
    2.8565566482421283,
    0.0,
    1.185766937411582,
    0.0,
    3.0419425688236448,
    2.6279347805799502,
]

CANDIDATES = [words_of(texts[0]) for texts in CAPTIONS]
REFERENCES = [[words_of(text) for text in texts[1:]] for texts in CAPTIONS]
