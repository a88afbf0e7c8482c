INSERT INTO {name}.orders (account_id, symbol, side, quantity, limit_price, placed_at)
    SELECT n % 60 + 1, (ARRAY['AAPL', 'MSFT', 'NESN', 'SAP', 'ASML'])[n % 5 + 1],
        (ARRAY['buy', 'sell'])[n * 7919 / 13 % 2 + 1], 2 * (1 + n * 7907 % 50),
        round((ARRAY[180, 410, 95, 165, 690])[n % 5 + 1] * (1 + (n * 104729 % 1000 - 500) / 10000.0), 4),
        '{begin}'::timestamptz + n * interval '{step} seconds'
    FROM generate_series({first}::bigint, {last}::bigint) n;
INSERT INTO {name}.fills (order_id, trade, quantity, price, amount, fee, slippage, venue, note, filled_at)
    SELECT o.id, 'T' || lpad((o.id * 2 + k)::text, 8, '0'), o.quantity / 2, p.price, p.price * (o.quantity / 2),
        round(p.price * (o.quantity / 2) * 0.001, 4), (o.id * 31 + k) % 100 / 1000.0,
        (ARRAY['XETRA', 'NYSE', 'SIX'])[(o.id + k) % 3 + 1],
        CASE WHEN (o.id * 2 + k) % 10 = 0 THEN NULL ELSE 'filled at ' || (ARRAY['Zürich', 'Köln', 'Genève'])[o.id % 3 + 1] END,
        o.placed_at + (k + 1) * interval '1 minute'
    FROM {name}.orders o, generate_series(0, 1) k,
        LATERAL (SELECT round(o.limit_price * (1 + (o.id % 11 - 5) / 2000.0), 4) AS price) p
    WHERE o.id BETWEEN {first} AND {last};
