"""Bytes on disk: the messages, the frames around them, the CRC chain."""
