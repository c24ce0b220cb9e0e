"""The host: sends each image to all boards, joins what they answer, applies the FC layer."""
