"""How fast scratchnet is beside PyTorch and others, and why: `python -m benchmarks`.

`task` says exactly what work is done, `contenders` do it, each in a process of its own (`worker`),
`harness` lets them take turns, and `agreement` decides whose time counts. `report` draws what the
recorded `results` say. Where there is a GPU, `gpu_campaign` runs all of it and more, and `ladder`
has its engines rung by rung; `emulated` rehearses that without one.
"""
