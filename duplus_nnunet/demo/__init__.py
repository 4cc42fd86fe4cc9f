"""The parts of `duplus demo`: a folder, nnU-Net's commands, the scores and the control."""
