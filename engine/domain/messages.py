"""What actors are told, what they answer, and what happens in them: of every kind of actor."""

from engine.domain import payment, schedule, waiting_room

Command = schedule.Command | waiting_room.Command | payment.Command
Event = schedule.Event | waiting_room.Event | payment.Event
Reply = schedule.Reply | waiting_room.Reply | payment.Reply
