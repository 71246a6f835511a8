"""The hospital's message broker: RabbitMQ, over AMQP 0-9-1."""
