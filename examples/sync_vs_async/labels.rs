//! Every word of the table and the page, in English and Spanish. `{name}` in a text is filled by
//! [`fill`].

pub(crate) use crate::amounts::{bytes, number, time};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lang {
    En,
    Es,
}

impl Lang {
    pub(crate) fn code(self) -> &'static str {
        match self {
            Lang::En => "en",
            Lang::Es => "es",
        }
    }
}

macro_rules! labels {
    ($($key:ident $en:literal $es:literal;)*) => {
        /// One text in both languages.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Label { $($key),* }

        #[cfg(test)]
        const ALL: &[Label] = &[$(Label::$key),*];

        impl Label {
            pub(crate) fn text(self, lang: Lang) -> &'static str {
                match (self, lang) {
                    $((Label::$key, Lang::En) => $en, (Label::$key, Lang::Es) => $es,)*
                }
            }
        }
    };
}

labels! {
    // Servers.
    Serial "one at a time" "de uno en uno";
    Threads "threads" "hilos";
    Reactor "reactor" "reactor";
    Offload "off-loading" "delegando";
    Timer "timer" "temporizador";
    PyThreads "Py threads" "Py hilos";
    PyAsyncio "Py asyncio" "Py asyncio";
    SerialLong "blocking, one client at a time" "bloqueante, un cliente cada vez";
    ThreadsLong "blocking, a thread per connection" "bloqueante, un hilo por conexión";
    ReactorLong "reactor, one thread for all" "reactor, un hilo para todas";
    OffloadLong "reactor that gives slow work to other threads"
        "reactor que delega el trabajo lento en otros hilos";
    TimerLong "reactor that waits with timers" "reactor que espera con temporizadores";
    PyThreadsLong "CPython's socketserver, a thread per connection"
        "socketserver de CPython, un hilo por conexión";
    PyAsyncioLong "CPython's asyncio, a task per connection"
        "asyncio de CPython, una tarea por conexión";

    // The table.
    HeadServer "server" "servidor";
    HeadThreads "thr." "hil.";
    HeadMemory "kB/con" "kB/con";
    HeadRate "req/s" "pet/s";
    HeadFair "Jain" "Jain";
    HeadSwitches "sw/rq" "cc/pt";
    HeadCalls "sc/rq" "ls/pt";
    HeadCpu "cpu/rq" "cpu/pt";
    HeadUnanswered "lost" "sin r.";
    TableLegend "thr. threads; kB/con resident kB per connection; req/s requests per second; p50, \
        p99, p99.9 latency; Jain fairness, 1 is fair; sw, sc, cpu per request: context switches, \
        system calls (under strace), CPU time. µ = µs, m = ms. Below each figure: half the range \
        of the rounds, in %."
        "hil. hilos; kB/con kB residentes por conexión; pet/s peticiones por segundo; p50, p99, \
        p99.9 latencia; Jain equidad, 1 es justo; cc, ls, cpu por petición: cambios de contexto, \
        llamadas al sistema (con strace), tiempo de CPU. µ = µs, m = ms. Bajo cada cifra: la mitad \
        del rango de las rondas, en %.";
    LoadBound "* the load used more than 0.9 of a core: the server could do more."
        "* la carga usó más de 0,9 de un núcleo: el servidor podría dar más.";
    NoStrace "sc: strace is missing, so system calls were not counted."
        "ls: falta strace, así que no se contaron las llamadas al sistema.";
    Connections "{n} connections" "{n} conexiones";
    OneConnection "1 connection" "1 conexión";
    IdleShare ", {n} % of them idle" ", el {n} % inactivas";
    Notice "What to notice" "En qué fijarse";
    BrokenOff "Broken off: this is what was measured until then."
        "Interrumpido: esto es lo medido hasta entonces.";
    PageWritten "The page: {file}" "La página: {file}";

    // Scenes.
    SceneSteady "steady load" "carga constante";
    SceneLoops "open loop, {rate} requests/s over {n} connections"
        "lazo abierto, {rate} peticiones/s en {n} conexiones";
    SceneSlow "slow handler: 1 request in 100 takes 50 ms; open loop, {rate}/s"
        "manejador lento: 1 petición de 100 tarda 50 ms; lazo abierto, {rate}/s";
    SceneSlowClosed "slow handler, closed loop" "manejador lento, lazo cerrado";
    SceneWaiting "every request waits 5 ms; connections: {n}"
        "cada petición espera 5 ms; conexiones: {n}";
    SceneReaders "4 clients that hardly read; latency of 20 others"
        "4 clientes que apenas leen; latencia de otros 20";
    SceneIdle "{n} connections, all but 10 idle" "{n} conexiones, inactivas menos 10";
    SceneBeside "1 interactive client beside 16 that flood; its latency"
        "1 cliente interactivo junto a 16 que inundan; su latencia";

    // Left out.
    LeftPython "CPython's servers are left out: there is no python3 on the PATH."
        "Faltan los servidores de CPython: no hay python3 en el PATH.";
    LeftPythonHttp "CPython's servers take part in the adding game only, not in HTTP."
        "Los servidores de CPython solo participan en el juego de sumar, no en HTTP.";
    LeftStrace "There is no strace here: system calls, the life of a message and the timeline of \
        threads are left out (on Debian: apt install strace)."
        "Aquí no hay strace: faltan las llamadas al sistema, la vida de un mensaje y la línea de \
        tiempo de los hilos (en Debian: apt install strace).";
    LeftFiles "{detail} connections are left out: a process may open {max} files (ulimit -Hn), \
        and each connection is one."
        "Faltan {detail} conexiones: un proceso puede abrir {max} archivos (ulimit -Hn), y cada \
        conexión es uno.";
    LeftFailed "Failed and left out: {detail}." "Falló y se omite: {detail}.";

    // What to notice. Each is chosen by the figures of the run.
    NoteSerial "One at a time served {served} of {asking} clients; the others waited all the time. \
        Their wait is in its p99.9 and not in its median: averages hide whom they leave out."
        "De uno en uno atendió a {served} de {asking} clientes; los demás esperaron todo el \
        tiempo. \
        Su espera está en el p99.9 y no en la mediana: los promedios ocultan a quien dejan fuera.";
    NoteMedianThreads "With {n}, threads win the median: {a} against {b} on the \
        reactor. A thread already sleeps in the read of its connection; the reactor first asks \
        which one is ready."
        "Con {n}, los hilos ganan en la mediana: {a} frente a {b} en el reactor. Un \
        hilo ya duerme en la lectura de su conexión; el reactor pregunta antes cuál está lista.";
    NoteMedianReactor "With {n}, the reactor wins the median: {b} against {a} on \
        threads."
        "Con {n}, el reactor gana en la mediana: {b} frente a {a} con hilos.";
    NoteMedianSame "With {n}, the medians of threads ({a}) and reactor ({b}) differ \
        by no more than the rounds do."
        "Con {n}, las medianas de hilos ({a}) y reactor ({b}) no difieren más que las \
        rondas entre sí.";
    NoteRateThreads "With {n} threads answer more: {a} requests/s against {b}. They use \
        all {cores} cores, the reactor one; per request they use {ca} of CPU and it {cb}."
        "Con {n} los hilos responden más: {a} peticiones/s frente a {b}. Usan los \
        {cores} núcleos y el reactor uno; por petición gastan {ca} de CPU y él {cb}.";
    NoteRateReactor "With {n} the reactor answers more: {b} requests/s against {a} on \
        threads, with {cb} of CPU per request against {ca}."
        "Con {n} el reactor responde más: {b} peticiones/s frente a {a} con hilos, con \
        {cb} de CPU por petición frente a {ca}.";
    NoteRateSame "With {n} threads ({a} requests/s) and reactor ({b}) differ by no more \
        than the rounds do."
        "Con {n}, hilos ({a} peticiones/s) y reactor ({b}) no difieren más que las \
        rondas entre sí.";
    NoteMemory "{n} take {threads} threads and {a} of memory each, or one loop and {b} each."
        "{n} ocupan {threads} hilos y {a} de memoria cada una, o un solo bucle y {b} cada una.";
    NoteSwitches "With {n} a request costs threads {a} context switches and the reactor \
        {b}: a loop that finds many sockets ready serves them all before it sleeps."
        "Con {n} una petición cuesta a los hilos {a} cambios de contexto y al reactor \
        {b}: un bucle que encuentra muchos sockets listos los atiende a todos antes de dormir.";
    NoteCalls "The reactor makes {a} system calls per request with {m} and {b} with \
        {n}; threads always make about {c}. The third call is the wait, and many share it."
        "El reactor hace {a} llamadas al sistema por petición con {m} y {b} con {n}; \
        los hilos siempre unas {c}. La tercera llamada es la espera, y muchas la comparten.";
    NoteSlow "A handler that takes 50 ms once in 100 times moves the p90 of the reactor to {b}, \
        and \
        that of threads to {a}: on one thread everybody waits for it."
        "Un manejador que tarda 50 ms una vez de cada 100 lleva el p90 del reactor a {b}, y el de \
        los hilos a {a}: en un solo hilo todos lo esperan.";
    NoteOffload "Off-loading repairs it: a p90 of {c}, with one loop and a few threads."
        "Delegar lo arregla: un p90 de {c}, con un bucle y unos pocos hilos.";
    NoteOmission "A closed loop hides this: measured so, the reactor's p90 is {closed}, since a \
        client that waits asks for nothing. The open loop counts from when a request was due: \
        {open}."
        "Un lazo cerrado lo oculta: medido así, el p90 del reactor es {closed}, pues un cliente \
        que espera no pide nada. El lazo abierto cuenta desde que la petición tocaba: {open}.";
    NoteWaiting "When each request waits 5 ms, {n} get {a} requests/s from threads, \
        {b} from a reactor that sleeps in its callback, and {c} from one that sets a timer."
        "Cuando cada petición espera 5 ms, {n} obtienen {a} peticiones/s de los hilos, \
        {b} de un reactor que duerme en su función, y {c} de uno que pone un temporizador.";
    NoteQueue "{server}: of a client that hardly reads, the server keeps at most {bytes} unsent \
        (the high mark is {mark}), and then stops to read from it."
        "{server}: de un cliente que apenas lee, el servidor guarda como mucho {bytes} sin enviar \
        (la marca alta es {mark}), y entonces deja de leer de él.";
    NoteIdle "Of {n}, all but 10 idle: the active ones see a median of {a} on threads \
        and {b} on the reactor. Idle threads cost memory, not time."
        "De {n}, inactivas todas menos 10: las activas ven una mediana de {a} con hilos \
        y {b} en el reactor. Los hilos inactivos cuestan memoria, no tiempo.";
    NoteBeside "Beside 16 clients that flood, one that asks now and then has a p99 of {a} on \
        threads and {b} on the reactor."
        "Junto a 16 clientes que inundan, uno que pregunta de vez en cuando tiene un p99 de {a} \
        con hilos y {b} en el reactor.";
    NotePython "CPython pays more for each request, in whichever style: {a} of CPU with threads \
        and {b} with asyncio, against {c} on lariat's reactor ({n})."
        "CPython paga más por petición, en cualquier estilo: {a} de CPU con hilos y {b} con \
        asyncio, frente a {c} en el reactor de lariat ({n}).";
    NoteBusy "Other programs kept {cores} of the {all} cores busy meanwhile. Such a run shows \
        shapes; \
        its figures, tails above all, are those of a busy machine."
        "Otros programas ocuparon mientras tanto {cores} de los {all} núcleos. Una ejecución así \
        muestra formas; sus cifras, sobre todo las colas, son las de una máquina ocupada.";
    NoteLate "The load itself was late: 1 request in 100 left {late} or more after it was due, in \
        the worst of the open loops. That is inside the latencies; a quieter machine shows less."
        "La propia carga llegó tarde: 1 petición de 100 salió {late} o más después de lo debido, \
        en el peor de los lazos abiertos. Eso está dentro de las latencias; una máquina más \
        tranquila muestra menos.";

    // The page.
    PageTitle "Synchronous and asynchronous, side by side" "Síncrono y asíncrono, cara a cara";
    PageLede "The same small protocol on blocking threads and on a reactor: what each of them \
        does, what it costs, where each one wins, and where it loses."
        "El mismo protocolo pequeño con hilos bloqueantes y con un reactor: qué hace cada uno, qué \
        cuesta, dónde gana y dónde pierde.";
    Cores "{n} cores" "{n} núcleos";
    AsTable "The same as a table" "Lo mismo como tabla";
    TryIt "Record it here:" "Grábelo aquí:";
    LoseThreads "Make threads lose:" "Haga perder a los hilos:";
    LoseReactor "Make the reactor lose:" "Haga perder al reactor:";
    LoseSerial "Make one at a time lose:" "Haga perder a uno en uno:";
    TileMedian "median latency, {n}" "latencia mediana, {n}";
    TileRate "requests/s, {n}" "peticiones/s, {n}";
    TileMemory "memory each, {n}" "memoria por cada una, {n}";
    TileSwitches "switches per request, {n}" "cambios por petición, {n}";
    TileCalls "calls per request, {n}" "llamadas por petición, {n}";
    TileSlow "p90 beside a slow handler" "p90 con un manejador lento";
    AxisConnections "connections" "conexiones";
    AxisRate "requests/s" "peticiones/s";
    AxisCpu "CPU per request, µs" "CPU por petición, µs";
    AxisLoad "cores used by the load" "núcleos que usó la carga";
    AxisPercentile "share of requests that were faster"
        "parte de las peticiones que fueron más rápidas";
    AxisLatency "latency" "latencia";
    AxisMemory "resident kB per connection" "kB residentes por conexión";
    AxisVirtual "reserved kB per connection" "kB reservados por conexión";
    AxisThreads "threads" "hilos";
    AxisSwitches "context switches per request" "cambios de contexto por petición";
    AxisCalls "system calls per request" "llamadas al sistema por petición";
    AxisRank "connections, the busiest first, %" "conexiones, la más atendida primero, %";
    AxisShare "requests, of an even share" "peticiones, respecto a partes iguales";
    AxisTime "ms" "ms";
    AxisUnsent "unsent KiB per slow reader" "KiB sin enviar por lector lento";

    LanesTitle "Twenty milliseconds: many mostly empty lanes, or one full one"
        "Veinte milisegundos: muchos carriles casi vacíos, o uno lleno";
    LanesLead "Twelve clients together ask 2,000 times a second for 0.3 ms of computing. A lane is \
        a thread, and the number at its end is how much of the time it works. Recorded under \
        strace, which stretches every call, and the quietest 20 ms of the recording: the shape \
        counts, not the length."
        "Doce clientes piden entre todos 2000 veces por segundo 0,3 ms de cálculo. Un carril es \
        un hilo, y el número a su derecha es qué parte del tiempo trabaja. Grabado con strace, que \
        alarga cada llamada, y los 20 ms más tranquilos de la grabación: cuenta la forma, no la \
        longitud.";
    LanesAria "Timeline of the {n} threads of {server}"
        "Línea de tiempo de los {n} hilos de {server}";
    Thread "thread" "hilo";
    DoRunning "runs a callback" "ejecuta una función";
    DoWriting "writes" "escribe";
    DoReading "blocked in read" "bloqueado leyendo";
    DoPolling "asleep in poll" "dormido en poll";
    DoWaiting "waits for a client or lock" "espera un cliente o cerrojo";

    RateTitle "Throughput against connections" "Rendimiento frente a conexiones";
    RateLead "Every client asks, waits for the answer, and asks again. The bar through a mark is \
        the range of the rounds. Two processes share the cores: the server and the load."
        "Cada cliente pregunta, espera la respuesta y vuelve a preguntar. La barra en cada marca \
        es \
        el rango de las rondas. Dos procesos comparten los núcleos: el servidor y la carga.";
    RatePanel "requests per second" "peticiones por segundo";
    CpuPanel "CPU time of the server per request" "tiempo de CPU del servidor por petición";

    CurveTitle "How long do the slowest wait?" "¿Cuánto esperan los más lentos?";
    CurveLead "To the right are the slowest 10 %, 1 %, 0.1 % of the requests. In a closed loop a \
        client that waits asks for nothing, and its wait counts once. In an open loop requests \
        leave when they are due, and latency counts from then."
        "A la derecha están el 10 %, el 1 % y el 0,1 % más lento de las peticiones. En un lazo \
        cerrado, un cliente que espera no pide nada y su espera cuenta una vez. En un lazo abierto \
        las peticiones salen cuando tocan, y la latencia cuenta desde entonces.";
    ClosedPanel "closed loop, {n} connections" "lazo cerrado, {n} conexiones";
    Closed "closed" "cerrado";
    OpenAt "open, {rate}/s" "abierto, {rate}/s";
    OpenPanel "open loop, {rate} requests/s" "lazo abierto, {rate} peticiones/s";
    Loop "loop" "lazo";

    MemoryTitle "Memory and threads" "Memoria e hilos";
    MemoryLead "Memory of the process that came with its connections, each of which has asked \
        once, divided by their number. Below ten connections it would be mostly what the process \
        takes once."
        "Memoria del proceso que llegó con sus conexiones, cada una de las cuales ha preguntado \
        una vez, dividida por su número. Con menos de diez sería sobre todo lo que el proceso \
        ocupa una sola vez.";
    MemoryPanel "resident memory per connection" "memoria residente por conexión";
    ThreadsPanel "threads of the server" "hilos del servidor";

    SwitchesTitle "Context switches and system calls per request"
        "Cambios de contexto y llamadas al sistema por petición";
    SwitchesLead "A thread that waits for its client gives up the core: one switch for each \
        request. A reactor sleeps only when no socket is ready. The same in calls: read and write \
        are needed by all, the wait may be shared."
        "Un hilo que espera a su cliente cede el núcleo: un cambio por petición. Un reactor solo \
        duerme cuando ningún socket está listo. Lo mismo en llamadas: leer y escribir lo necesitan \
        todos, la espera se puede compartir.";
    SwitchesPanel "context switches per request" "cambios de contexto por petición";
    CallsPanel "system calls per request, by connections"
        "llamadas al sistema por petición, por conexiones";
    CallWait "wait for readiness" "esperar";
    CallRead "read" "leer";
    CallWrite "write" "escribir";
    CallLock "lock (futex)" "cerrojo (futex)";
    CallOther "other" "otras";

    StateTitle "Where is the state of one connection?" "¿Dónde está el estado de una conexión?";
    StateLead "The state of the game is one sum. What differs is what has to be kept around it."
        "El estado del juego es una suma. Lo que cambia es cuánto hay que guardar a su alrededor.";
    StatePanel "bytes of one connection, {n} open" "bytes de una conexión, con {n} abiertas";
    StateValue "the protocol's value" "el valor del protocolo";
    StateResident "resident in all" "residente en total";
    StateVirtual "reserved (mostly the stack)" "reservado (sobre todo la pila)";
    StateWhere "where the sum is" "dónde está la suma";
    StateRust "lariat: a field of the value" "lariat: un campo del valor";
    StatePython "CPython: a local variable" "CPython: una variable local";
    CodeBetween "here, between two calls" "aquí, entre dos llamadas";
    CodeWhole "a whole line is there: number" "hay una línea entera: number";
    CodeBack "and back to the driver" "y de vuelta al driver";
    CodeThread "a thread" "un hilo";
    CodeOnStack "here, on its stack" "aquí, en su pila";
    CodeBlocks "blocks" "bloquea";
    CodeTask "a task" "una tarea";
    CodeInFrame "in its frame" "en su marco";
    StateThreads "A field of the connection's Protocol value, on the heap. Beside it stands a \
        thread with a stack, most of it reserved and never touched."
        "Un campo del valor Protocol de la conexión, en el montículo. Junto a él hay un hilo con \
        su pila, casi toda reservada y nunca tocada.";
    StateReactor "The same field of the same value, in a slot of the loop's table. The stack \
        belongs to the loop, so nothing of the connection may stay on it between two callbacks."
        "El mismo campo del mismo valor, en una casilla de la tabla del bucle. La pila es del \
        bucle, así que nada de la conexión puede quedarse en ella entre dos funciones.";
    StatePyThreads "A local variable of handle(), in the frame of a thread of its own."
        "Una variable local de handle(), en el marco de un hilo propio.";
    StatePyAsyncio "A local variable of a coroutine, whose frame is kept on the heap while it \
        awaits."
        "Una variable local de una corrutina, cuyo marco se guarda en el montículo mientras \
        espera.";

    SlowTitle "One slow handler" "Un manejador lento";
    SlowLead "One request in 100 takes 50 ms in the handler, as a query to a database might. \
        Threads lose one of themselves for that time; a reactor loses everybody."
        "Una petición de cada 100 tarda 50 ms en el manejador, como lo haría una consulta a una \
        base de datos. Los hilos pierden a uno de ellos ese tiempo; un reactor los pierde a todos.";
    OmissionPanel "the same, closed loop (faint) and open loop"
        "lo mismo, lazo cerrado (tenue) y lazo abierto";
    OffloadText "Off-loading, which is Context::offload: the callback hands the slow part to a \
        thread of a small pool, pauses its own connection and returns. The answer comes back as a \
        note."
        "Delegar, que es Context::offload: la función entrega la parte lenta a un hilo de un grupo \
        pequeño, pausa su propia conexión y vuelve. La respuesta regresa como una nota.";

    HeatTitle "The slow handler over time" "El manejador lento en el tiempo";
    HeatLead "Each cell counts requests that were due in that moment and took so long; the \
        stronger, the more. A slow callback of the reactor is a stripe that falls: a request that \
        came right after it began waited longest."
        "Cada celda cuenta peticiones que tocaban en ese momento y tardaron tanto; cuanto más \
        intenso, más. Una función lenta del reactor es una franja que cae: la petición que llegó \
        justo después de su inicio esperó más.";
    FromLatency "from" "desde";
    Requests "requests" "peticiones";

    WaitTitle "The simple model: waiting and computing" "El modelo simple: esperar y calcular";
    WaitLead "Every request waits 5 ms and computes for microseconds. Marks are measured, dotted \
        lines are the model."
        "Cada petición espera 5 ms y calcula durante microsegundos. Las marcas son medidas, las \
        líneas de puntos son el modelo.";
    WaitPanel "requests per second" "peticiones por segundo";
    Model "the model" "el modelo";
    ModelText "With n connections, a wait w and CPU time c: threads answer the lower of n/(w+c) \
        and cores/c, a loop that sleeps in its callback 1/(w+c), a loop with timers the lower of \
        n/(w+c) and 1/c. Here w is 5 ms, there are {cores} cores, and c is what was measured: {a} \
        on threads, {b} with timers."
        "Con n conexiones, una espera w y un tiempo de CPU c: los hilos responden lo menor de \
        n/(w+c) y núcleos/c, un bucle que duerme en su función 1/(w+c), un bucle con \
        temporizadores \
        lo menor de n/(w+c) y 1/c. Aquí w es 5 ms, hay {cores} núcleos, y c es lo medido: {a} con \
        hilos, {b} con temporizadores.";
    ModelParts "{server}: measurement and model part at {n} connections, where {share} % of the \
        model was reached. It knows nothing of the load beside it, of the scheduler, of caches, or \
        that a timer fires up to 1 ms late."
        "{server}: la medida y el modelo se separan con {n} conexiones, donde se alcanzó el \
        {share} % del modelo, que no sabe nada de la carga a su lado, del planificador, de las \
        cachés, ni de que un temporizador salta hasta 1 ms tarde.";
    ModelHolds "Everywhere here the measurement reaches at least 70 % of the model."
        "En todas partes la medida alcanza aquí al menos el 70 % del modelo.";

    FairTitle "Is everybody served alike?" "¿Se atiende a todos por igual?";
    FairLead "Connections sorted by how many requests they got answered; 1× is an even share. \
        Who got less than a tenth lies on the bottom line."
        "Conexiones ordenadas por cuántas peticiones les respondieron; 1× es a partes iguales. \
        Quien recibió menos de un décimo está en la línea inferior.";
    FairPanel "requests of each connection, {n} connections"
        "peticiones de cada conexión, {n} conexiones";
    Served "served" "atendidas";
    Busiest "busiest" "la más atendida";
    LeastBusy "least busy" "la menos atendida";

    BesideTitle "Beside bad neighbours" "Junto a malos vecinos";
    BesideLead "Latency of well-behaved clients while others flood, do not read, or only sit \
        there. The mark is the median, the thick line reaches to p99 (written above it), the thin \
        one to the slowest."
        "Latencia de clientes corteses mientras otros inundan, no leen o solo están ahí. La marca \
        es la mediana, la línea gruesa llega al p99 (escrito encima), la fina al más lento.";
    Load "load" "carga";

    QueueTitle "A slow reader, and the water marks" "Un lector lento y las marcas de agua";
    QueueLead "Four clients send without end and hardly read. Above the high mark ({high}) the \
        server stops to read from them, at the low mark ({low}) it goes on: its memory is bounded, \
        and the kernel's window tells the client to wait. The send buffer of the kernel is small \
        here, so that the server's own queue is seen."
        "Cuatro clientes envían sin fin y apenas leen. Por encima de la marca alta ({high}) el \
        servidor deja de leer de ellos, en la marca baja ({low}) sigue: su memoria está acotada, y \
        la ventana del núcleo le dice al cliente que espere. El búfer de envío del núcleo es aquí \
        pequeño, para que se vea la cola del propio servidor.";
    HighMark "high mark" "marca alta";
    LowMark "low mark" "marca baja";

    LifeTitle "The life of one message" "La vida de un mensaje";
    LifeLead "A client connects, asks twice and leaves. These are the system calls that each \
        server made for it, from a recorded trace. The second request is the usual case: nothing \
        has to be set up any more."
        "Un cliente conecta, pregunta dos veces y se va. Estas son las llamadas al sistema que \
        hizo \
        cada servidor por él, de una traza grabada. La segunda petición es el caso normal: ya no \
        hay nada que preparar.";
    LifeCount "{m} calls for a message, {n} for the whole life"
        "{m} llamadas por mensaje, {n} en toda la vida";
    PhaseAccept "connect and first message" "conexión y primer mensaje";
    PhaseMessage "second message" "segundo mensaje";
    PhaseClose "close" "cierre";
    Phase "phase" "fase";
    Slider "Step" "Paso";
    StepOf "{a} of {b}" "{a} de {b}";
    Slept "slept until then" "durmió hasta entonces";
    ThreadNumber "thread {n}" "hilo {n}";
    MoreCalls "{n} calls" "{n} llamadas";
    Began "began" "comenzó";
    Took "took" "duró";
    Call "call" "llamada";
    MeansWait "sleeps until the kernel says that a socket is ready"
        "duerme hasta que el núcleo dice que un socket está listo";
    MeansAccept "takes a new connection" "toma una conexión nueva";
    MeansNoMore "no further client waits" "no espera ningún cliente más";
    MeansRead "takes the client's bytes" "toma los bytes del cliente";
    MeansSleptRead "sleeps until the client's bytes come, and takes them"
        "duerme hasta que llegan los bytes del cliente, y los toma";
    MeansSleptAccept "sleeps until a client comes, and takes its connection"
        "duerme hasta que llega un cliente, y toma su conexión";
    MeansAsk "asks the kernel which sockets are ready"
        "pregunta al núcleo qué sockets están listos";
    MeansEnd "the client has finished sending" "el cliente ha terminado de enviar";
    MeansWrite "hands the answer to the kernel" "entrega la respuesta al núcleo";
    MeansThread "starts the thread of this connection" "crea el hilo de esta conexión";
    MeansRegister "tells the kernel to watch this socket" "pide al núcleo que vigile este socket";
    MeansLock "waits for another thread, or wakes it" "espera a otro hilo, o lo despierta";
    MeansClose "gives the connection up" "suelta la conexión";
    MeansOther "housekeeping: memory, stacks, options" "intendencia: memoria, pilas, opciones";

    MethodTitle "How it was measured" "Cómo se midió";
    MethodGame "The adding game: a client sends numbers, one per line, and the answer to each is \
        the sum so far. The three servers of lariat run the same Protocol value; those of CPython \
        play the same game."
        "El juego de sumar: un cliente envía números, uno por línea, y la respuesta a cada uno es \
        la suma hasta ahí. Los tres servidores de lariat ejecutan el mismo valor Protocol; los de \
        CPython juegan al mismo juego.";
    MethodHttp "HTTP/1.1: a client asks for a short page on a connection that stays open. The \
        servers of lariat run the same handler."
        "HTTP/1.1: un cliente pide una página corta en una conexión que sigue abierta. Los \
        servidores de lariat ejecutan el mismo manejador.";
    Method "Every server and every load is a process of its own, on the loopback interface. The \
        load is one thread on epoll; it checks every byte of every answer. A steady load was \
        measured in rounds of {seconds} s ({rounds} here), the servers taking turns; figures are \
        the middle of the rounds, with their range. CPU time, switches, memory and threads are \
        those that /proc tells of the server. | A request without an answer counts with the time \
        it had waited when the load ended. Where a load used a whole core, the load was the limit: \
        the table has the share. | The whole run took {took} s; a process may open {files} files \
        here."
        "Cada servidor y cada carga es un proceso propio, en la interfaz de bucle local. La carga \
        es un hilo sobre epoll; comprueba cada byte de cada respuesta. La carga constante se midió \
        en rondas de {seconds} s ({rounds} aquí), turnándose los servidores; las cifras son el \
        valor central de las rondas, con su rango. El tiempo de CPU, los cambios, la memoria y los \
        hilos son los que /proc dice del servidor. | Una petición sin respuesta cuenta con el \
        tiempo que había esperado al acabar la carga. Donde una carga usó un núcleo entero, la \
        carga era el límite: la tabla dice cuánto. | Todo duró {took} s; aquí un proceso puede \
        abrir {files} archivos.";

    // Comparing two runs.
    PictureClients "12 clients, {n} threads" "12 clientes, {n} hilos";
    PictureClient "12 clients, 1 thread" "12 clientes, 1 hilo";
    Compared "{a} (first) and {b} (second)" "{a} (primera) y {b} (segunda)";
    HeadFirst "first" "primera";
    HeadSecond "second" "segunda";
    HeadRatio "ratio" "razón";
    CompareLegend "Ratios are second to first. * the ranges of the rounds have nothing in common."
        "Las razones son segunda entre primera. * los rangos de las rondas no se tocan.";
    OtherMachine "The machines differ: {a}; {b}." "Las máquinas son distintas: {a}; {b}.";
    NothingCommon "The two runs have no measurement in common."
        "Las dos ejecuciones no tienen ninguna medida en común.";
}

/// Puts values in the place of their names in braces.
pub(crate) fn fill(text: &str, values: &[(&str, String)]) -> String {
    let mut filled = text.to_owned();
    for (name, value) in values {
        filled = filled.replace(&format!("{{{name}}}"), value);
    }
    filled
}

/// The short name of a server.
pub(crate) fn server(name: &str, lang: Lang) -> &'static str {
    let label = match name {
        "serial" => Label::Serial,
        "threads" => Label::Threads,
        "reactor" => Label::Reactor,
        "offload" => Label::Offload,
        "timer" => Label::Timer,
        "py-threads" => Label::PyThreads,
        _ => Label::PyAsyncio,
    };
    label.text(lang)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in braces, sorted.
    fn names(text: &str) -> Vec<&str> {
        let mut names: Vec<_> =
            text.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    #[test]
    fn every_label_is_there_in_both_languages_with_the_same_values() {
        for &label in ALL {
            let [en, es] = [Lang::En, Lang::Es].map(|lang| label.text(lang));
            assert!(!en.trim().is_empty() && !es.trim().is_empty(), "{label:?}");
            assert_eq!(names(en), names(es), "{label:?}");
            assert!(!en.contains("  ") && !es.contains("  "), "{label:?} has a gap");
        }
    }

    #[test]
    fn what_is_written_alike_in_both_languages_is_a_name_or_a_unit() {
        let alike: Vec<_> = ALL
            .iter()
            .map(|l| (l.text(Lang::En), l.text(Lang::Es)))
            .filter(|(a, b)| a == b)
            .collect();
        let alike: Vec<_> = alike.into_iter().map(|(text, _)| text).collect();
        assert_eq!(alike, ["reactor", "Py asyncio", "kB/con", "Jain", "ms"]);
    }

    #[test]
    fn a_text_is_filled_by_name() {
        let filled = fill("{a} of {b}, {a}", &[("a", "1".to_owned()), ("b", "2".to_owned())]);
        assert_eq!(filled, "1 of 2, 1");
    }
}
