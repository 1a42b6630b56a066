"""The kinds of JSON file that are read, each with its keys, their types and their ranges.

A file that people or other programs may have made is checked by its schema before anything in it is used. `docs` lists them.
"""

from sbert_mini.files.json_schema import (
    Anything,
    Digest,
    Either,
    Flag,
    Integer,
    ListOf,
    MapOf,
    Number,
    Object,
    OneOf,
    PathText,
    Required,
    Text,
    optional,
)

_ANY_TEXT = Text(halves=True)
_SIZE = Integer(1, 1 << 31)
_COUNT = Integer()
_SHA256 = Digest()
_NAME = Text(r"[0-9]{6,18}", "a number of six digits or more")

# --- models ----------------------------------------------------------------------------------------------------------

ANY_OBJECT = Object({})
"""A file of which nothing is read by key, or whose reader checks it further."""
CONFIG = Object(
    {
        "model_type": optional(Text()),
        "position_embedding_type": optional(Text()),
        "is_decoder": optional(Flag()),
        "add_cross_attention": optional(Flag()),
        "hidden_act": optional(Text()),
    }
)
"""`config.json` of an encoder; `BertConfig` checks the sizes."""
MODULES = ListOf(Object({"type": Required(Text()), "path": Required(PathText())}))
"""`modules.json`."""
TOKENIZER_CONFIG = Object(
    {
        "model_max_length": optional(Number(0)),
        "do_lower_case": optional(Flag()),
        "tokenize_chinese_chars": optional(Flag()),
        "strip_accents": optional(Flag()),
        **{
            f"{name}_token": optional(Either((Text(), Object({"content": Required(Text())}))))
            for name in ("cls", "sep", "pad", "unk", "mask")
        },
    }
)
"""`tokenizer_config.json`."""
TOKENIZER = Object(
    {
        "added_tokens": optional(
            ListOf(
                Object(
                    {
                        "id": Required(Integer(0, (1 << 24) - 1)),
                        "content": Required(Text()),
                        **{
                            key: Required(Flag())
                            for key in ("single_word", "lstrip", "rstrip", "normalized", "special")
                        },
                    }
                )
            )
        ),
        "model": Required(
            Object(
                {
                    "type": Text(),
                    "unk_token": Required(Text()),
                    "continuing_subword_prefix": Required(Text()),
                    "max_input_chars_per_word": Required(Integer(1, 200)),  # a word costs the cube of it; BERT's is 100
                    "vocab": Required(ANY_OBJECT),
                }
            )
        ),
    }
)
"""`tokenizer.json`, where it is BERT's."""
SENTENCE_BERT_CONFIG = Object({"max_seq_length": optional(Integer(1)), "do_lower_case": optional(Flag())})
"""`sentence_bert_config.json`."""
SENTENCE_TRANSFORMERS_CONFIG = Object(
    {
        "prompts": optional(
            MapOf(Text(r"(?s).{0,4096}", "a text of at most 4,096 characters"))
        ),  # stands before each text
        "default_prompt_name": optional(Text()),
        "similarity_fn_name": optional(Text()),
        "truncate_dim": optional(_SIZE),
    }
)
"""`config_sentence_transformers.json`."""
POOLING_CONFIG = Object(
    {
        "pooling_mode": optional(Either((Text(), ListOf(Text())))),
        "include_prompt": optional(Flag()),
        **{
            f"pooling_mode_{name}": optional(Flag())
            for name in (
                "cls_token",
                "max_tokens",
                "mean_tokens",
                "mean_sqrt_len_tokens",
                "weightedmean_tokens",
                "lasttoken",
            )
        },
    }
)
"""`config.json` of a Pooling module."""
DENSE_CONFIG = Object(
    {
        "in_features": Required(Integer(1, 1 << 20)),
        "out_features": Required(Integer(1, 1 << 20)),
        "bias": Flag(),
        "activation_function": Text(),
        "module_input_name": optional(Text()),
        "use_residual": optional(Flag()),
    }
)
"""`config.json` of a Dense module."""
WEIGHTS_INDEX = Object({"weight_map": Required(MapOf(PathText()))})
"""`model.safetensors.index.json`."""
TOKEN_TABLE = Object({"format": Required(_COUNT), "sha256": Required(_SHA256), "space": optional(_SHA256)})
"""`token_vectors.json`."""
GRAPH_RECORD = Object(
    {
        "format": Required(_COUNT),
        "fingerprint": Required(_SHA256),  # it becomes the name of a folder in the cache
        "source": Required(
            Object(
                {
                    "tokenizer": Required(_SHA256),
                    "description": Required(_SHA256),
                    "adapter": _SHA256,
                    "weights": Required(ListOf(_SHA256)),
                    "weight_stats": Required(ListOf(ListOf(Integer(-(1 << 63), 1 << 63)))),
                }
            )
        ),
        "graphs": Required(
            MapOf(
                Object(
                    {
                        "file": Required(Text(r"[A-Za-z0-9_]+\.onnx", "the name of an .onnx file")),
                        "bytes": Required(_COUNT),
                        "sha256": Required(_SHA256),
                    }
                )
            )
        ),
    }
)
"""`onnx/sbmini.json`."""
RANGES = Object(
    {
        "fingerprint": Required(Text()),
        **{name: Required(ListOf(Number())) for name in ("low", "high", "growth")},
    }
)
"""`onnx/ranges.json`."""
HEAD_FORMAT = Object({"format": Required(_COUNT)})
"""What every version of a head's `config.json` has."""
HEAD_CONFIG = Object(
    {
        "task": Required(Text()),
        "structure": Required(Text()),
        "kind": Required(Text()),
        "dimension": Required(_SIZE),
        "labels": Required(ListOf(Text())),
        "low": Required(Number(-1e9, 1e9)),
        "high": Required(Number(-1e9, 1e9)),
        "hidden": Required(Integer(0, 1 << 20)),
        "dropout": Required(Number(0, 1)),
        "columns": Required(ListOf(Text())),
        "adapter_size": Integer(0, 1 << 16),
        "adapter_heads": Integer(0, 1 << 16),
    }
)
"""`heads/<task>/config.json`."""

# --- indexes ---------------------------------------------------------------------------------------------------------

_CHECKSUMS = Object(
    {"bytes": Required(_COUNT), "block_bytes": Required(Integer(1, 1 << 40)), "sha256": Required(ListOf(_SHA256))}
)
POINTER = Object(
    {
        "format_version": Required(_COUNT),
        "manifest": Required(Text(r"generations/[0-9]{6,18}\.json", "the name of a manifest")),
        "sha256": Required(_SHA256),
    }
)
"""`CURRENT` of an index."""
VERSION = Object({"format_version": Required(_COUNT)})
"""What every version of `CURRENT` and of a manifest has."""
_COLUMN_TYPE = OneOf(("integer", "number", "boolean", "text"))
_EXTENT = ListOf(_COUNT, 2, 2)
MANIFEST = Object(
    {
        "format_version": Required(_COUNT),
        "generation": Required(Integer(1, 1 << 40)),  # far below MANY: a writer goes on from here
        "created": Required(Text()),
        "model": Required(
            Object(
                {
                    "name": Required(PathText("the name of a model")),
                    "fingerprint": Required(Text()),
                    "graph": Required(OneOf(("int8", "fp32"))),
                    "dimension": Required(Integer(1, 1 << 20)),
                    "prompt": Text(),
                    "space": Text(),
                }
            )
        ),
        "kind": Object({"factory": Text(), "pca": optional(Integer(1, 1 << 20))}),
        "rows": Required(_COUNT),
        "deleted": Required(optional(_CHECKSUMS)),
        "next_row": Required(Integer(0, 1 << 48)),
        "columns": ListOf(
            Object(
                {"name": Required(_ANY_TEXT), "type": Required(optional(_COLUMN_TYPE)), "declared": Required(Flag())}
            )
        ),
        "segments": Required(
            ListOf(
                Object(
                    {
                        "name": Required(_NAME),
                        "rows": Required(Integer(1)),
                        "vectors": Integer(1),
                        "checksums_sha256": Required(_SHA256),
                    }
                )
            )
        ),
        "long_texts": optional(
            Object(
                {
                    "truncation": Required(OneOf(("warn", "error", "chunk", "passages"))),
                    "tokens": optional(_SIZE),
                    "overlap": optional(Integer(0, 1 << 31)),
                }
            )
        ),
    }
)
"""`generations/N.json` of an index."""
SEGMENT_CHECKSUMS = Object(
    {
        "files": Required(
            Object(
                {
                    **{
                        name: Required(_CHECKSUMS)
                        for name in ("vectors.npy", "row_ids.npy", "rows.jsonl", "row_offsets.npy", "id_index.npy")
                    },
                    **dict.fromkeys(("passages.npy", "words.sqlite", "columns.bin", "columns.json"), _CHECKSUMS),
                }
            )
        )
    }
)
"""`segments/N/checksums.json`."""
ROW = Object(
    {"id": Required(_ANY_TEXT), "text": Required(_ANY_TEXT), "columns": Required(MapOf(Anything(), Anything()))}
)
"""A line of `segments/N/rows.jsonl`."""
_PARTS = ListOf(ListOf(Integer(0, 1 << 31), 2, 2), 1, 4096)
DOCUMENT_COLUMNS = Object(
    {
        "synced_from": Required(_ANY_TEXT),
        "file_path": Required(_ANY_TEXT),
        "file_format": Required(
            OneOf(("text", "markdown", "rst", "html", "code", "jsonl", "csv", "tsv", "pdf", "docx"))
        ),
        "file_encoding": Text(r"[a-z0-9_-]{1,40}", "the name of an encoding"),
        "file_line": Integer(1),
        "file_places": Object({"line": _PARTS, "page": _PARTS}),
    }
)
"""The columns of a row that a sync of a folder made, from which its place in the file is computed (`columns` of `rows.jsonl`)."""
COLUMNS = Object(
    {
        "rows": Required(_COUNT),
        "columns": Required(
            ListOf(
                Object(
                    {
                        "name": Required(_ANY_TEXT),
                        "type": Required(_COLUMN_TYPE),
                        "row_id": Required(Flag()),
                        "count": Required(_COUNT),
                        "values": Required(_EXTENT),
                        **{key: Required(optional(_EXTENT)) for key in ("positions", "offsets", "codes")},
                        "hashes": optional(_EXTENT),
                        "narrow": optional(_EXTENT),
                    }
                )
            )
        ),
    }
)
"""`segments/N/columns.json`."""
FAISS_RECORD = Object(
    {
        "segment_sha256": Required(_SHA256),
        "factory": Required(Text()),
        "probes": Required(optional(Integer(1, 1 << 31))),
        "lists_start": Required(optional(_COUNT)),
        "file": Required(_CHECKSUMS),
        "repeats": optional(_CHECKSUMS),
    }
)
"""`faiss/N.json`."""
WORDS_VERSION = Object({"format": Required(_COUNT), "analyzer": Required(_COUNT), "tantivy": Required(Text())})
"""What every version of `words/N/record.json` has."""
_TANTIVY_ROWS = Integer(1, (1 << 31) - 1)
_OPSTAMP = Integer(0, (1 << 62) - 1)
WORDS_RECORD = Object(
    {
        "content": Required(_SHA256),
        "rows": Required(_COUNT),
        "opstamp": Required(_OPSTAMP),
        "segments": Required(
            ListOf(
                Object(
                    {
                        "segment_id": Required(
                            Text("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "the id of a segment of tantivy")
                        ),
                        "max_doc": Required(_TANTIVY_ROWS),
                        "deletes": Required(
                            optional(
                                Object({"num_deleted_docs": Required(_TANTIVY_ROWS), "opstamp": Required(_OPSTAMP)})
                            )
                        ),
                    }
                )
            )
        ),
        "files": Required(MapOf(Object({"bytes": Required(_COUNT), "sha256": Required(_SHA256)}))),
    }
)
"""`words/N/record.json`, of the present version."""
REDUCTION = Object({"explained": Required(Number()), "whitened": Required(Flag())})
"""The metadata of a file of `sbmini reduce fit`, which is safetensors."""
GROUPS = Object(
    {
        "names": Required(ListOf(Text())),
        "threshold": Required(Number(0, 1)),
        "fingerprint": optional(Text()),
        "prompt": Text(),
    }
)
"""The metadata of a file of `sbmini cluster --save`, which is safetensors."""

# --- runs ------------------------------------------------------------------------------------------------------------

JOB_STATE = Object(
    {
        "job": Required(ANY_OBJECT),
        "kind": Required(Text()),
        "model": Text(),
        "rows": Required(_COUNT),
        "records_bytes": Required(_COUNT),
        "digest": Required(Text()),
    }
)
"""`OUTPUT.partial/state.json` of `sbmini encode`."""
BULK_JOB = Object({"finished": MapOf(_COUNT)})
"""The record of a bulk job; what it must be the same as is compared whole."""
TRAINER_STATE = Object(
    {
        "global_step": Required(_COUNT),
        "max_steps": Required(_COUNT),
        "stateful_callbacks": Required(
            Object({"TrainerControl": Object({"args": Object({"should_training_stop": Flag()})})})
        ),
    }
)
"""`checkpoint-N/trainer_state.json`, as transformers writes it."""
FITTER_STATE = Object(
    {
        "optimizer": Required(
            Object({"numbers": Required(ANY_OBJECT), "param_groups": Required(ListOf(ANY_OBJECT, 1))})
        ),
        "scheduler": Required(ANY_OBJECT),
        "random": Required(ListOf(Object({key: Required(ListOf(Anything(), 3)) for key in ("python", "numpy")}), 1)),
        "fitter": Required(ANY_OBJECT),
    }
)
"""The fitter's own state in a checkpoint."""
LOG_LINE = ANY_OBJECT
"""A line of a run's log."""
