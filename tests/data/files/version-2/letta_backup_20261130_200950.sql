--
-- PostgreSQL database dump
--

\restrict O3RhggAR99D18VTr93TqQyKamUIkAo8725n5KOdkj1qxBtf2cxZKIeD8achM35m

-- Dumped from database version 18.6
-- Dumped by pg_dump version 18.6

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: letta; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA letta;


ALTER SCHEMA letta OWNER TO postgres;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: agents; Type: TABLE; Schema: letta; Owner: postgres
--

CREATE TABLE letta.agents (
    id text NOT NULL,
    name text NOT NULL
);


ALTER TABLE letta.agents OWNER TO postgres;

--
-- Name: messages; Type: TABLE; Schema: letta; Owner: postgres
--

CREATE TABLE letta.messages (
    id integer NOT NULL,
    agent_id text NOT NULL,
    text text
);


ALTER TABLE letta.messages OWNER TO postgres;

--
-- Data for Name: agents; Type: TABLE DATA; Schema: letta; Owner: postgres
--

COPY letta.agents (id, name) FROM stdin;
agent-1	Scarlet
\.


--
-- Data for Name: messages; Type: TABLE DATA; Schema: letta; Owner: postgres
--

COPY letta.messages (id, agent_id, text) FROM stdin;
1	agent-1	message 1
2	agent-1	message 2
3	agent-1	message 3
4	agent-1	message 4
5	agent-1	message 5
\.


--
-- Name: agents agents_pkey; Type: CONSTRAINT; Schema: letta; Owner: postgres
--

ALTER TABLE ONLY letta.agents
    ADD CONSTRAINT agents_pkey PRIMARY KEY (id);


--
-- Name: messages messages_pkey; Type: CONSTRAINT; Schema: letta; Owner: postgres
--

ALTER TABLE ONLY letta.messages
    ADD CONSTRAINT messages_pkey PRIMARY KEY (id);


--
-- Name: messages messages_agent_id_fkey; Type: FK CONSTRAINT; Schema: letta; Owner: postgres
--

ALTER TABLE ONLY letta.messages
    ADD CONSTRAINT messages_agent_id_fkey FOREIGN KEY (agent_id) REFERENCES letta.agents(id);


--
-- PostgreSQL database dump complete
--

\unrestrict O3RhggAR99D18VTr93TqQyKamUIkAo8725n5KOdkj1qxBtf2cxZKIeD8achM35m

