"""A Llama-like language model in GGUF format as a Hugging Face folder: weights, tokenizer and chat template."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

#: Of the config, what speaks of the file that it was read from and no more.
_OF_THE_FILE = ("quantization_config", "_name_or_path", "_model_name_or_path")


def convert(gguf: Path, out: Path) -> None:
    """Writes config, safetensors in fp32 and tokenizer to `out`. `gguf` must have been checked by its SHA-256.

    Quantized weights are multiplied out: a model of 135 M weights takes 1.3 GB of memory meanwhile.
    """
    folder, name = gguf.parent, gguf.name
    AutoTokenizer.from_pretrained(folder, gguf_file=name, trust_remote_code=False).save_pretrained(out)
    read = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, trust_remote_code=False
    )
    if not isinstance(read, LlamaForCausalLM):
        raise ValueError(f"{name} is no Llama but a {type(read).__name__}")
    # The library writes no model that it read from GGUF: what it holds is plain weights all the same.
    told = {key: value for key, value in read.config.to_dict().items() if key not in _OF_THE_FILE}
    with torch.device("meta"):
        plain = LlamaForCausalLM(LlamaConfig(**told))
    plain.load_state_dict(read.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(out)
