#!/usr/bin/env bash
# TransformerLens 4.3.0: boot_transformers(hf_model=model) takes the model apart that it is handed.
#
# Guess:     a bridge around a loaded model reads its weights, as HookedTransformer did; the model itself stays a model of
#            transformers, which can be compared with the bridge, saved, or looked at by another library.
# Behaviour: its blocks, attentions, MLPs and norms are exchanged, in place, for the bridge's components. It computes the
#            same, but its state_dict has other names, all with "_original_component", so that its own earlier weights no
#            longer load into it, save_pretrained fails, and a time taken of it afterwards is the bridge's.
#            Who wants to compare hands over a deep copy.
# Seen:      GPT-2 of 3 blocks: outputs as before, to 2e-7; of 41 names in its state_dict 0 are left among 150 new ones;
#            load_state_dict of the weights it had: RuntimeError (missing keys); save_pretrained: RuntimeError.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 transformer-lens==4.3.0
cat > "$work/bridge.py" <<'PY'
import sys

import torch
from tokenizers import Tokenizer, models
from transformer_lens import TransformerBridge
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

folder = sys.argv[1]
special = dict(unk_token="w0", bos_token="w1", eos_token="w2", pad_token="w2")
words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(100)}, unk_token="w0"))
PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
torch.manual_seed(0)
model = GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=64, n_head=4, n_positions=64, vocab_size=100)).eval()
model.save_pretrained(folder)
x = torch.randint(100, (4, 20))
before, kept = model(x).logits, {name: value.clone() for name, value in model.state_dict().items()}
TransformerBridge.boot_transformers(folder, hf_model=model, tokenizer=AutoTokenizer.from_pretrained(folder))
after = set(model.state_dict())


def fails(call):
    try:
        call()
    except RuntimeError as error:
        return str(error).splitlines()[0][:60]
    return None


loads, saves = fails(lambda: model.load_state_dict(kept)), fails(lambda: model.save_pretrained(f"{folder}/again"))
print(f"outputs differ by {(model(x).logits - before).abs().max().item():.1e}")
print(f"{len(after & set(kept))} of {len(kept)} names left, {len(after)} now; loading: {loads}; saving: {saves}")
assert torch.allclose(model(x).logits, before, atol=1e-5) and not after & set(kept) and loads and saves, "CHANGED"
print("as stated")
PY
HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/bridge.py" "$work/model"
