"""The only files that know aiohttp and pika."""
