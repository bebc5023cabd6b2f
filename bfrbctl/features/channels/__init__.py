"""Frame channels: what the engine computes of every frame of a recording.

`canonical` brings a recording into one frame of reference; `imu`, `thermopile` and `tof` give the channels.
"""
