"""Decoding of videos, images and audio; faces, landmarks and crops."""
