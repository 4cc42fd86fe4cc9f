"""The parts of `duplus demo`: its folder, nnU-Net's commands, the scores and the control experiments."""
