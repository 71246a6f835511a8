-- Penalties say who may not book, why and until when (0006_people.sql); nothing wrote or read this any more.
alter table patient drop column blocked_until;
