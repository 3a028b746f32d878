"""Building of a normal form from an exported graph: with standard modules, and tensors under their old names."""

from __future__ import annotations

import itertools
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from models.check import Misdeclared
from models.graph import calls
from models.graph.aliases import roots, written
from models.graph.capture import lift
from models.graph.capture.composite import write_out
from models.graph.capture.inline import inline
from models.graph.capture.inplace import functional
from models.graph.capture.memory import settle
from models.graph.capture.parts import join_parts
from models.graph.flow import is_held, is_size
from models.graph.frozen_norm import FrozenNorm, is_frozen
from models.graph.normal import Form, NormalForm, Size, is_kind, type_and_device

aten = torch.ops.aten


def build(model: nn.Module, program: ExportedProgram, picture: Size, arch: str) -> NormalForm:
    """Build the normal form of an exported network, with its parameters and buffers.

    Raises:
        Misdeclared: exit 2 for a buffer that evaluation changes, or a module whose name a normal form already uses.
    """
    return _Builder(model, program, picture, arch).normal_form()


class _Builder:
    """One walk over an exported graph."""

    def __init__(self, model: nn.Module, program: ExportedProgram, picture: Size, arch: str) -> None:
        self.model, self.program, self.picture, self.arch = model, program, picture, arch
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.graph = fx.Graph()
        self.new: dict[fx.Node, fx.Node] = {}  # the new node of each exported node
        self.tensors: dict[fx.Node, tuple[str, Tensor]] = {}  # name and tensor of each node that stands for a tensor
        self.put: dict[str, nn.Module] = {}  # the standard modules, by name
        self.read: dict[str, Tensor] = {}  # the tensors that ATen operations read, by name
        self.constants: dict[str, Tensor] = dict(program.constants)
        self.aliases: dict[str, str] = {}
        self.ran: set[str] = set()
        self.place = type_and_device(model)
        self.changed: set[fx.Node] = set()  # nodes whose memory a later call writes into
        self.memory: dict[fx.Node, fx.Node] = {}  # the first node in the memory of each

    def normal_form(self) -> NormalForm:
        inline(self.program.graph_module, self.arch)
        write_out(self.program.graph)
        self._inputs()
        settle(self.program.graph, self.arch)
        functional(self.program.graph)
        join_parts(self.program.graph)
        self.changed, self.memory = written(self.program.graph), roots(self.program.graph)
        for node in self.program.graph.nodes:
            if node.op == "call_function":
                self._call(node)
        outputs = self.program.graph.output_node().args[0]
        kinds = (spec.kind for spec in self.program.graph_signature.output_specs)
        answers = [node for node, kind in zip(outputs, kinds, strict=True) if kind is OutputKind.USER_OUTPUT]
        self.graph.output(self.new[next(node for node in answers if isinstance(node, fx.Node))])
        self.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output") or calls.changes(node))
        self._leave_out_what_is_unused()
        form = NormalForm(Form(self.graph, self.picture, self.aliases, self._vanished()))
        self._fill(form)
        return form

    def _leave_out_what_is_unused(self) -> None:
        """Forget the modules and tensors of results that nothing reads, as an early exit's in evaluation."""
        called = {str(node.target) for node in self.graph.find_nodes(op="call_module")}
        read = {str(node.target) for node in self.graph.find_nodes(op="get_attr")}
        self.put = {name: module for name, module in self.put.items() if name in called}
        self.read = {name: tensor for name, tensor in self.read.items() if name in read}
        self.ran |= {owner for node in self.graph.nodes if (owner := node.meta.get("owner")) is not None}

    def _inputs(self) -> None:
        """Map each input of the exported graph to the pictures or to a tensor of the network."""
        signature, changed = self.program.graph_signature, written(self.program.graph)
        known: dict[str, Tensor] = dict(self.model.named_parameters(remove_duplicate=False))
        known.update(self.model.named_buffers(remove_duplicate=False))
        specs = {spec.arg.name: spec for spec in signature.input_specs}
        for node in self.program.graph.find_nodes(op="placeholder"):
            spec = specs[node.name]
            if spec.kind is InputKind.USER_INPUT:
                self.new[node] = self.graph.placeholder("x")
                self.new[node].meta.update(_about(node, ""))
            else:
                name = str(spec.target)
                self.tensors[node] = name, known[name] if name in known else self.constants[name]
                if node in changed:
                    raise Misdeclared(
                        f"--arch {self.arch}: evaluation changes its {'buffer' if name in known else 'constant'} {name}",
                        "change it only in training: if self.training",
                    )

    def _call(self, node: fx.Node) -> None:
        if node.target is aten._assert_tensor_metadata.default:
            return  # the assertion would refuse float64 and autocast
        if calls.converts_nothing(node):
            source = calls.source(node)
            where: dict[fx.Node, Any] = self.new if source in self.new else self.tensors
            where[node] = where[source]
            return
        owner = calls.owner(node)
        if calls.is_constant(node):  # kept as a call, torch.arange would stay on the device of the capture
            self.ran.add(owner)
            name = self._name(owner, calls.packet(node))
            self.constants[name] = cast(Any, node.target)(*node.args, **node.kwargs)
            self.tensors[node] = name, self.constants[name]
            if node in self.changed:  # each run starts from the same numbers
                self.new[node] = self.graph.call_function(aten.clone.default, (self._argument(node),))
                self.new[node].meta.update(_about(node, owner))
            return
        if found := self._module(node, owner):
            name, source = found
            new = self.graph.call_module(name, (self._argument(source),))
        else:
            target, given = calls.unspecific(node)
            arguments = fx.node.map_aggregate((given, calls.typed(node)), self._argument)
            new = self.graph.create_node("call_function", target, *arguments)
            new.meta["follows"] = not {*self.place}.isdisjoint(leaf for leaf in tree_leaves(arguments) if is_kind(leaf))
        new.meta.update(_about(node, owner))
        values = [source for source in new.all_input_nodes if not is_size(source)]
        own = bool(values) and all(is_held(source) for source in values)
        new.meta["held"] = own and self.memory.get(node, node) not in self.changed  # a call may write pictures into it
        self.new[node] = new

    def _argument(self, value: Any) -> Any:
        if not isinstance(value, fx.Node):
            return value
        if value in self.new:
            return self.new[value]
        name, tensor = self.tensors[value]
        self.read[name] = tensor
        found = self.graph.get_attr(name)
        found.meta["type"] = tensor.dtype
        return found

    def _module(self, node: fx.Node, owner: str) -> tuple[str, fx.Node] | None:
        """Return the name of a call's standard module, entered if new, and the value that it reads; else None."""
        packet = calls.packet(node)
        if packet in lift.WITHOUT_WEIGHT:
            values = calls.values(node)
            made = lift.WITHOUT_WEIGHT[packet](values)
            name = self._enter(owner, packet, made) if made else None
        elif packet in lift.WITH_WEIGHT:
            values = calls.values(node)
            name = self._with_weight(values, lift.WITH_WEIGHT[packet], owner, packet)
        elif packet is aten.batch_norm:
            values = calls.values(node)
            name = self._norm(values, len(calls.shape(node) or ()), owner)
        else:
            return None
        return (name, next(iter(values.values()))) if name else None

    def _enter(self, owner: str, packet: Any, made: nn.Module) -> str:
        """Enter a new module. Return its name: the owner's for the first one of the owner's kind, else a free name."""
        own = self.modules[owner]
        alike = isinstance(own, type(made)) or isinstance(made, type(own))
        name = owner if alike and owner and owner not in self.put else self._name(owner, packet, alike)
        self.put[name] = made
        return name

    def _name(self, owner: str, packet: Any, alike: bool = False) -> str:
        """Return a free name for a call: owner and operation, with a number if it is taken.

        Args:
            alike: whether the owner is a module of the operation's kind. Then the name is the owner's with a number.
        """
        start = owner if alike and owner else f"{owner}.{packet.__name__.rstrip('_')}".lstrip(".")
        names = (f"{start}_{number}" if number else start for number in itertools.count())
        return next(name for name in names if name not in {**self.put, **self.constants} and not self._taken(name))

    def _taken(self, name: str) -> bool:
        owner, _, leaf = name.rpartition(".")
        return owner in self.modules and hasattr(self.modules[owner], leaf)

    def _with_weight(self, values: calls.Values, make: Any, owner: str, packet: Any) -> str | None:
        nodes = {key: values[key] for key in ("weight", "bias") if values.get(key) is not None}
        if any(node not in self.tensors for node in nodes.values()):
            return None  # a computed weight, for example by a parametrization
        names = {key: self.tensors[node][0] for key, node in nodes.items()}
        tensors = {key: self.tensors[node][1] for key, node in nodes.items()}
        if not all(isinstance(tensor, nn.Parameter) for tensor in tensors.values()):
            return None
        made = make(values, tensors["weight"])
        if made is None:
            return None
        made._parameters.update(tensors)
        owners = (owner, names["weight"].rpartition(".")[0])
        name = next((o for o in owners if o and self._holds(o, tensors)), None)
        if name is None:  # no module holds these as its weight and bias
            name = self._enter(owner, packet, made)
            self.aliases.update({f"{name}.{key}": names[key] for key in names})
        elif name not in self.put:
            self.put[name] = made
        elif str(self.put[name]) != str(made):
            return None  # the same weight with other settings, for example another stride
        return name

    def _holds(self, name: str, tensors: dict[str, Tensor]) -> bool:
        """Return whether these are the weight and bias of a module of the network."""
        module = self.modules[name]
        return all(getattr(module, key, None) is tensors.get(key) for key in ("weight", "bias"))

    def _norm(self, values: calls.Values, dimensions: int, owner: str) -> str | None:
        own = self.modules[owner]
        parts = ("weight", "bias", "running_mean", "running_var")
        given = {part: self.tensors.get(values[part], (None, None))[1] for part in parts}
        frozen = is_frozen(own)
        if not (frozen or isinstance(own, _BatchNorm)) or any(getattr(own, part) is not given[part] for part in parts):
            return None  # the user's own function: what training does to its statistics is not known
        if frozen:
            self.put[owner] = FrozenNorm.like(own)
        elif owner not in self.put:
            made = lift.norm(values, dimensions, own.num_features, own.momentum)
            made._parameters.update(own._parameters)
            made._buffers.update(own._buffers)
            self.put[owner] = made
        return owner

    def _vanished(self) -> tuple[str, ...]:
        """Return the names of the modules without children that evaluation does not use under any of their names."""
        leaves = (name for name, module in self.modules.items() if name and not any(True for _ in module.children()))
        ran = {id(self.modules[name]) for name in (*self.ran, *self.put) if name in self.modules}
        own = ((name, self.modules[name]) for name in leaves)
        return tuple(name for name, module in own if id(module) not in ran and not isinstance(module, nn.Identity))

    def _fill(self, form: NormalForm) -> None:
        """Put all modules and tensors into their places, in the order of the captured network."""
        own = {*self.model._modules, *self.model._parameters, *self.model._buffers}
        if clash := own & {*vars(form), *dir(NormalForm), "self"}:
            raise Misdeclared(
                f"--arch {self.arch}: a module, parameter or buffer has the reserved name {min(clash)}", "rename it"
            )
        by_alias = {*self.aliases.values()} - {*self.read}
        used = {id(t) for module in self.put.values() for t in module.state_dict(keep_vars=True).values()}
        used |= {id(tensor) for tensor in self.read.values()}
        for name, module in self.modules.items():
            place = _put(form, name, self.put.get(name) or nn.Module()) if name else form
            for leaf, tensor in (*module._parameters.items(), *module._buffers.items()):
                key = f"{name}.{leaf}".lstrip(".")
                if tensor is None or key in by_alias or leaf in {**place._parameters, **place._buffers}:
                    continue
                if isinstance(tensor, nn.Parameter) and id(tensor) in used:  # perhaps under another of its names
                    place.register_parameter(leaf, tensor)
                elif (
                    id(tensor) in used or leaf not in module._non_persistent_buffers_set
                ):  # unused ones stay in the file
                    held = tensor if id(tensor) in used else tensor.detach()
                    place.register_buffer(leaf, held, leaf not in module._non_persistent_buffers_set)
        for name, module in self.put.items():
            if name not in self.modules:
                _put(form, name, module)
        for name, tensor in self.read.items():
            if name in self.constants:
                owner, _, leaf = name.rpartition(".")
                form.get_submodule(owner).register_buffer(leaf, tensor, persistent=False)


def _put(root: nn.Module, name: str, module: nn.Module) -> nn.Module:
    owner, _, leaf = name.rpartition(".")
    root.get_submodule(owner).add_module(leaf, module)
    return module


def _about(node: fx.Node, owner: str) -> dict[str, Any]:
    """Return the `meta` of an exported node's new node: see Form."""
    value = node.meta.get("val")
    return {
        "owner": owner, "shape": calls.shape(node), "sizes": calls.sizes(node), "line": calls.line(node),
        "type": value.dtype if isinstance(value, Tensor) else None,
    }  # fmt: skip
