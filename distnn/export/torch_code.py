"""The lines of Python that load the weights into PyTorch."""

from distnn.export import facts
from distnn.nn.activations import LEAK
from distnn.training.prediction import Trained

FUNCTIONS = {
    "identity": "{}",
    "sigmoid": "torch.sigmoid({})",
    "tanh": "torch.tanh({})",
    "relu": "torch.relu({})",
    "leaky-relu": f"torch.nn.functional.leaky_relu({{}}, {LEAK})",
    "elu": "torch.nn.functional.elu({})",
    "softplus": "torch.nn.functional.softplus({})",
    "gelu": "torch.nn.functional.gelu({}, approximate='tanh')",
    "softmax": "torch.softmax({}, dim=1)",
}
MOST_NAMES = 1000

CODE = '''\
import torch

{names}LAYERS = {layers}


class Model(torch.nn.Module):
    """{explanation}."""

    def __init__(self):
        super().__init__()
        pairs = zip(LAYERS, LAYERS[1:])
        self.layers = torch.nn.ModuleList(torch.nn.Linear(a, b) for a, b in pairs)
{buffers}

    def forward(self, x):
        """{x} -> {y}."""
        x = (x - self.shift) * self.scale
        for layer in self.layers[:-1]:
            x = {activation}
        x = {output}
        return {result}


model = Model(){double}
model.load_state_dict(torch.load({path}, weights_only=True))
model.eval()
'''


def torch_code(trained: Trained, path: str) -> str:
    """A Python file that makes the model from the state dict at `path`.

    What comes from files stands in it as literals of Python only.
    """
    network = trained.network
    n_in, n_out = network.layers[0], network.layers[-1]
    buffers = {"shift": n_in, "scale": n_in}
    kind = "probabilities" if network.output in ("softmax", "sigmoid") else "outputs"
    y, result = f"{kind} (n, {n_out})", "x"
    names = {"FEATURES": list(facts.features(trained))}
    if trained.is_classification:
        names["CLASSES"] = facts.labels(trained).tolist()
        if n_out == 1:
            y = "probabilities (n, 1) of the second class"
    else:
        buffers |= {"target_shift": n_out, "target_scale": n_out}
        names["TARGETS"] = facts.targets(trained)
        result = "x / self.target_scale + self.target_shift"
        if trained.units.transform is not None:
            result = f"torch.exp({result})"
        y = f"targets (n, {n_out}) in their own units"
    return CODE.format(
        names="".join(
            f"{key} = {value!r}\n" for key, value in names.items() if 0 < len(value) <= MOST_NAMES
        ),
        layers=list(network.layers),
        explanation=facts.explanation(trained),
        buffers="\n".join(
            f'        self.register_buffer("{name}", torch.zeros({n}))'
            for name, n in buffers.items()
        ),
        x=f"features (n, {n_in}), not scaled",
        y=y,
        activation=FUNCTIONS[network.activation].format("layer(x)"),
        output=FUNCTIONS[network.output].format("self.layers[-1](x)"),
        result=result,
        double=".double()" if network.dtype == "float64" else "",
        path=repr(path),
    )
