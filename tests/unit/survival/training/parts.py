"""Records, clinical data and a small network for tests of the trainer's parts."""

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from duplus_nnunet.data.case_table import Case, CaseTable, Source
from duplus_nnunet.networks import ConditionedUNet, Prompts, condition
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import SEEN, Record
from duplus_nnunet.survival.training.data import ClinicalData

SCHEMA = ClinicalSchema.model_validate(
    {"patient": "p", "time": {"column": "t"}, "event": {"column": "e", "seen": [1], "censored": [0]},
     "cases": "^([^_]+)_"}
)  # fmt: skip


def make_record(name: str, time: float = 10.0, event: str = SEEN) -> Record:
    return Record(1, name, "", time, event)


def make_clinic(*cases: str) -> ClinicalData:
    table = CaseTable({"s": Source("D", "ct", ("t",), ("CT",))}, {case: Case("s", case, ("t",), ()) for case in cases})
    return ClinicalData({name: make_record(name) for name in ("ann", "bob", "cid", "dot")}, SCHEMA, table, ())


def make_network() -> ConditionedUNet:
    torch.manual_seed(0)
    unet = PlainConvUNet(
        input_channels=1, n_stages=3, features_per_stage=[8, 8, 8], conv_op=nn.Conv3d, kernel_sizes=3,
        strides=[1, 2, 2], n_conv_per_stage=1, num_classes=1, n_conv_per_stage_decoder=1, conv_bias=True,
        norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
    )  # fmt: skip
    network = condition(unet, (8, 8))
    nn.init.normal_(network.film.out.weight, std=0.1)  # type: ignore[arg-type]
    network.bind(Prompts(torch.randn(1, 8), torch.randn(1, 8)))
    return network
