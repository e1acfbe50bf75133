// Market data: the states of exchanges, the list of markets, and for one market its book, its candles, and the tape
// of its trades.
import { useSignal, useSignalEffect } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { exchangeInWords, MARKETS_MAX, MarketBook, MarketCandles, type MarketRow, Markets, Trades } from '../events';
import { clock, count, fixed, plural } from '../format';
import { ask, onFrame } from '../frames';
import { href, replace, route } from '../route';
import { gatewayNow, link, second, skew, storage } from '../state';
import { keep, kept } from '../theme';
import { decimalsIn, KEPT } from '../tape';
import { BookBody, MarketsBody, SHOWN, TapeBody } from './bodies';
import { CandleChart } from './candle-chart';
import './events.css';

interface Market { exchange: string; symbol: string }

/** `binance/BTC-USDT`; a symbol may contain a slash. */
function marketOf(rest: string): Market | null {
  const at = rest.indexOf('/');
  return at <= 0 || at === rest.length - 1 ? null : { exchange: rest.slice(0, at), symbol: rest.slice(at + 1) };
}

export function Events() {
  const { rest } = route.value;
  const markets = useSignal<Markets | null>(null);
  const isOfAll = useSignal(kept('tape') === 'all');
  useEffect(() => {
    const it = (markets.value = new Markets());
    return () => it.stop();
  }, []);
  const it = markets.value;
  const market = marketOf(rest);
  const name = market ? rest : '';
  // Without a market in the address, the first one.
  useEffect(() => {
    if (!it || rest !== '' || it.count.value === 0) return;
    const last = kept('market') ?? '';
    replace(href('events', it.rows.has(last) ? last : [...it.rows.keys()].sort()[0]!));
  }, [rest, it?.count.value]);
  useEffect(() => { if (name !== '') keep('market', name); }, [name]);
  const setAll = (isAll: boolean) => { isOfAll.value = isAll; keep('tape', isAll ? 'all' : 'one'); };
  return (
    <main class="events" id="main">
      {it && <Exchanges markets={it} />}
      {it && <MarketList markets={it} selected={name} />}
      {market ? <BookPanel key={name} market={market} markets={it} /> : <section class="panel bookpanel" aria-labelledby="book"><h2 id="book">Order book</h2><p class="empty">{rest === '' ? 'Choose a market to see its book.' : 'A market is named by its exchange and its symbol, as in #/events/binance/BTC-USDT.'}</p></section>}
      {market && <CandlePanel key={`candles ${name}`} market={market} />}
      {it && <TapePanel key={isOfAll.value ? 'all' : name} market={market} markets={it} isOfAll={isOfAll.value} onAll={setAll} />}
    </main>
  );
}

/** How long errors of exchanges are shown. */
const ERROR_SHOWN_MS = 3_600_000;

/** The states of exchanges; problems come first. */
function Exchanges({ markets }: { markets: Markets }) {
  second.value;
  const [away, list] = [markets.exchanges.value.filter((it) => it.state !== 'connected' && it.state !== ''), markets.exchanges.value.filter((it) => it.state === 'connected' || it.state === '')];
  const NAMED = 8;
  return (
    <section class="panel exchanges" aria-labelledby="exchanges">
      <h1 id="exchanges">Exchanges</h1>
      <AsOf isDegraded={markets.isDegraded} />
      {markets.refused !== '' ? <p class="fault">{markets.refused}</p> : markets.exchanges.value.length === 0 ? <p class="dim">No feed has reported an exchange yet.</p> : (
        <ul>
          {[...away, ...list].slice(0, NAMED).map((it) => (
            <li key={it.exchange} class={it.state}>
              <i aria-hidden="true" /><b>{it.exchange}</b> <span class={away.includes(it) ? 'warn' : 'dim'}>{exchangeInWords(it)}</span>
              {it.error !== '' && second.value + skew.value - it.errorAt < ERROR_SHOWN_MS && <span class="dim"> · last error at {clock(it.errorAt - skew.value)}: {it.error}</span>}
            </li>
          ))}
          {markets.exchanges.value.length > NAMED && <li class="dim">and {count(markets.exchanges.value.length - NAMED)} more</li>}
        </ul>
      )}
    </section>
  );
}

/** Says if the data are not current, or incomplete. */
function AsOf({ isDegraded }: { isDegraded: boolean }) {
  const it = link.value;
  if (it.phase !== 'live') return it.since === 0 ? null : <p class="asof"><span class="chip late">Not live</span> as of {clock(it.since)}</p>;
  const stored = storage.value;
  return isDegraded && stored ? <p class="asof"><span class="chip late">This gateway’s events only</span> since {clock(stored.since - skew.value)}: those of other gateways come late</p> : null;
}

function MarketList({ markets, selected }: { markets: Markets; selected: string }) {
  const body = useRef<HTMLTableSectionElement>(null);
  const filter = useSignal('');
  const found = useSignal(0);
  const wanted = useRef({ filter: '', selected });
  wanted.current = { filter: filter.value, selected };
  useEffect(() => {
    const lines = new MarketsBody(body.current!, (row: MarketRow) => href('events', row.name));
    return onFrame(() => {
      lines.draw(markets.rows, markets.version, wanted.current.filter, wanted.current.selected, gatewayNow());
      found.value = lines.found;
    });
  }, [markets]);
  useEffect(ask);
  const all = markets.count.value;
  const refused = markets.tickers.refused.value;
  return (
    <section class="panel markets" aria-labelledby="markets">
      <div class="head">
        <h2 id="markets">Markets</h2><span class="spring" />
        <input type="search" data-filter class="filter" placeholder="Filter markets" aria-label="Filter markets by exchange or symbol" value={filter.value} onInput={(event) => { filter.value = event.currentTarget.value; }} />
      </div>
      {refused !== '' && <p class="fault">{refused}</p>}
      {markets.problem.value !== '' && <p class="fault">{markets.problem.value}</p>}
      {all === 0 && refused === '' && <p class="empty"><b>{link.value.phase === 'live' ? 'No market has events yet.' : 'Waiting for the gateway.'}</b> {link.value.phase === 'live' && 'They come from feeds of exchanges, and from publishers of events.'}</p>}
      <div class="scroll flat" tabIndex={0} role="region" aria-label="List of markets" hidden={all === 0}>
        <table>
          <thead><tr><th scope="col">Market</th><th scope="col" class="n">Last</th><th scope="col" class="n" title="Against the first price of its day">Day</th><th scope="col" class="n more">Bid</th><th scope="col" class="n more">Ask</th><th scope="col" class="n">Age</th></tr></thead>
          <tbody ref={body} />
        </table>
      </div>
      {all > 0 && <p class="foot"><span>{found.value === 0 ? `None of ${plural(all, 'market')} fits “${filter.value}”.` : found.value > SHOWN ? `The first ${SHOWN} of ${count(found.value)}: write more of the name.` : found.value === all ? plural(all, 'market') : `${count(found.value)} of ${plural(all, 'market')}`}</span>{all >= MARKETS_MAX && <span>no more are kept here</span>}</p>}
    </section>
  );
}

/** How many levels of each side are shown. */
const DEPTH = 15;

function BookPanel({ market, markets }: { market: Market; markets: Markets | null }) {
  const body = useRef<HTMLTableSectionElement>(null);
  const book = useSignal<MarketBook | null>(null);
  const shown = useSignal({ sequence: null as number | null, under: '', at: 0, isBehind: false });
  useEffect(() => {
    const it = (book.value = new MarketBook(market.exchange, market.symbol));
    const lines = new BookBody(body.current!, DEPTH);
    let drawn = -1;
    const stop = onFrame(() => {
      const { reader } = it;
      if (reader.version === drawn) return;
      drawn = reader.version;
      const { bids, asks, sequence } = reader.book;
      lines.draw(bids, asks);
      const [bid, offer] = [bids[0], asks[0]];
      const spread = bid && offer ? `Spread ${fixed(offer.price - bid.price, Math.max(decimalsIn(bid.priceText), decimalsIn(offer.priceText)))}` : 'One side is empty';
      shown.value = { sequence, under: `${spread} · ${plural(bids.length, 'bid')}, ${plural(asks.length, 'ask')}`, at: reader.at, isBehind: reader.isBehind };
    });
    return () => { stop(); it.stop(); };
  }, []);
  const { sequence, under, at, isBehind } = shown.value;
  const state = markets?.exchanges.value.find((it) => it.exchange === market.exchange)?.state ?? '';
  const refused = book.value?.listening.refused.value ?? '';
  const problem = book.value?.problem.value ?? '';
  const isAway = state === 'disconnected' || state === 'reconnecting';
  return (
    <section class="panel bookpanel" aria-labelledby="book">
      <div class="head">
        <h2 id="book">{market.symbol}</h2><span class="chip">{market.exchange}</span>
        {markets?.rows.get(`${market.exchange}/${market.symbol}`)?.isSimulated && <span class="chip sim" title="Simulated by a gateway: they come from no market">Simulated</span>}
        <span class="spring" />
        {sequence !== null && isAway && <span class="asof"><span class="chip late">Not connected</span> as of {clock(at - skew.value)}</span>}
        {sequence !== null && isBehind && !isAway && <span class="asof"><span class="chip late">A change is missing</span> as of {clock(at - skew.value)}, until the next whole book</span>}
      </div>
      {refused !== '' && <p class="fault">{refused}</p>}
      {problem !== '' && isBehind && <p class="fault">{problem}</p>}
      {sequence === null && refused === '' && <p class="empty">{book.value?.listening.isLive.value ? 'No whole book has come yet; it is shown as soon as one does.' : 'Reading the book …'}</p>}
      <div class="scroll flat" hidden={sequence === null}>
        <table class="book" aria-label={`Order book of ${market.symbol} at ${market.exchange}`} data-sequence={sequence ?? undefined}>
          <thead><tr><th scope="col" class="n">Size</th><th scope="col" class="n">Bid</th><th scope="col" class="n">Ask</th><th scope="col" class="n">Size</th></tr></thead>
          <tbody ref={body} />
        </table>
      </div>
      {sequence !== null && <p class="foot"><span>{under}</span><span class="more">change {count(sequence)}</span></p>}
    </section>
  );
}

function CandlePanel({ market }: { market: Market }) {
  const candles = useSignal<MarketCandles | null>(null);
  const intervals = useSignal<readonly string[]>([]);
  const wanted = useSignal('');
  useEffect(() => {
    const it = (candles.value = new MarketCandles(market.exchange, market.symbol));
    const stop = onFrame(() => {
      const now = it.candles.intervals();
      if (now.join() !== intervals.peek().join()) intervals.value = now;
    });
    return () => { stop(); it.stop(); };
  }, []);
  const it = candles.value;
  const interval = intervals.value.includes(wanted.value) ? wanted.value : (intervals.value[0] ?? '');
  const refused = it?.listening.refused.value ?? '';
  return (
    <section class="panel candles" aria-labelledby="candles">
      <div class="head">
        <h2 id="candles">Candles</h2><span class="spring" />
        {intervals.value.length > 0 && <div class="seg" role="group" aria-label="How long a candle is">{intervals.value.map((of) => <button type="button" key={of} aria-pressed={of === interval} onClick={() => { wanted.value = of; }}>{of}</button>)}</div>}
      </div>
      {refused !== '' && <p class="fault">{refused}</p>}
      {it && it.problem.value !== '' && refused === '' && <p class="fault">{it.problem.value}</p>}
      {it && interval !== '' ? <CandleChart key={interval} candles={it.candles} interval={interval} /> : refused === '' && <p class="empty">No candles of this market have come yet.</p>}
    </section>
  );
}

function TapePanel({ market, markets, isOfAll, onAll }: { market: Market | null; markets: Markets; isOfAll: boolean; onAll: (isAll: boolean) => void }) {
  const frame = useRef<HTMLDivElement>(null);
  const body = useRef<HTMLTableSectionElement>(null);
  const rest = useRef<HTMLDivElement>(null);
  const trades = useSignal<Trades | null>(null);
  /** While it stands still: how many had come by then. */
  const pausedAt = useSignal<number | null>(null);
  const shown = useSignal<{ all: number; perSecond: number | null }>({ all: 0, perSecond: null });
  const isNothing = !isOfAll && market === null;
  useEffect(() => {
    if (isNothing) return undefined;
    const it = (trades.value = new Trades(isOfAll ? null : market, (exchange, symbol) => void markets.row(exchange, symbol)));
    const lines = new TapeBody(body.current!, rest.current!, frame.current!, it.tape, isOfAll);
    const look = () => lines.look();
    const room = new ResizeObserver(look);
    frame.current!.addEventListener('scroll', look, { passive: true });
    room.observe(frame.current!);
    let told: { at: number; all: number } | null = null;
    const stop = onFrame((now) => {
      lines.draw(pausedAt.peek() ?? it.tape.count, pausedAt.peek() !== null);
      // What is written beside the tape changes once a second.
      if (told && now - told.at < 950 && shown.peek().all > 0) return;
      shown.value = { all: it.tape.count, perSecond: told && told.all > 0 ? (1000 * (it.tape.count - Math.max(it.before, told.all))) / (now - told.at) : null };
      told = { at: now, all: it.tape.count };
    });
    return () => { stop(); room.disconnect(); it.stop(); };
  }, []);
  useSignalEffect(() => { pausedAt.value; ask(); });
  const { all, perSecond } = shown.value;
  const refused = trades.value?.listening.value?.refused.value ?? '';
  return (
    <section class="panel tape" aria-labelledby="tape">
      <div class="head">
        <h2 id="tape">Trades</h2>
        <div class="seg" role="group" aria-label="Of which markets">
          <button type="button" aria-pressed={!isOfAll} onClick={() => onAll(false)}>{market?.symbol ?? 'This market'}</button>
          <button type="button" aria-pressed={isOfAll} onClick={() => onAll(true)}>All</button>
        </div>
        <span class="spring" />
        {all > 0 && <button type="button" class="quiet" aria-pressed={pausedAt.value !== null} onClick={() => { pausedAt.value = pausedAt.value === null ? (trades.value?.tape.count ?? 0) : null; }}>{pausedAt.value === null ? 'Pause' : 'Go on'}</button>}
      </div>
      {refused !== '' && <p class="fault">{refused}</p>}
      {all === 0 && refused === '' && <p class="empty">{isNothing ? 'Choose a market to see its trades.' : trades.value?.listening.value?.isLive.value ? 'No trades yet: they appear as they come.' : 'Waiting for the gateway.'}</p>}
      <div class="scroll flat" tabIndex={0} role="region" aria-label="Tape of trades" hidden={all === 0} ref={frame}>
        <table class={isOfAll ? 'all' : ''}>
          <thead><tr><th scope="col" class="when">Time</th>{isOfAll ? <th scope="col" class="name">Market</th> : <th scope="col" class="side">Side</th>}<th scope="col" class="n price">Price</th><th scope="col" class="n size">Size</th></tr></thead>
          <tbody ref={body} />
        </table>
        <div ref={rest} />
      </div>
      {all > 0 && <p class="foot"><span>{pausedAt.value !== null ? `Paused; ${plural(Math.max(0, all - pausedAt.value), 'newer line')}` : perSecond === null ? '' : `${perSecond >= 10 ? count(Math.round(perSecond)) : perSecond.toFixed(1)} a second`}</span><span>{all > KEPT ? `the newest ${KEPT} of ${count(all)}` : plural(all, 'line')}</span></p>}
    </section>
  );
}
