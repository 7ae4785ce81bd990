"""The guard's word lists: what people say when somebody may be hurt, and what only sounds like it.

Patterns are matched against text as `reading.readings` leaves it: lower case, no apostrophes (`don't` is `dont`), commas and dashes as spaces,
one space between words. They were written from the safety training conversations, from ordinary training turns of the other sources, and from our own
heads; no item of SimpleSafetyTests or XSTest was read to write or mend one. Our own red-team suite came from the same hand a little earlier, so
recall on it flatters (docs/safety.md has the numbers, and what is known to slip through). English only.
"""

from typing import Literal

Rules = dict[tuple[str, Literal["yellow", "red"]], tuple[str, ...]]
"""By category and level."""

PERSON = (
    r"(?:friend|mate|bestie|brother|sister|mum|mom|mam|dad|mother|father|son|daughter|husband|wife|partner|boyfriend|girlfriend|bf|gf|"
    r"roommate|flatmate|housemate|coworker|co worker|colleague|cousin|uncle|aunt|auntie|nan|nana|nani|gran|grandma|grandad|grandpa|"
    r"grandmother|grandfather|neighbou?r|student|teacher|kid|child|boy|girl|guy|man|woman|ex|boss|manager|stepdad|stepmum|stepmom|"
    r"stepfather|stepmother|someone|somebody|classmate|teammate|patient|he|she|they|hes|shes|theyre)"
)
_THEM = r"(?:him|her|them)sel(?:f|ves)"
_TARGET = (
    r"(?:him|her|them|someone|somebody|people|everyone|everybody|(?:my|his|her|their|a|the|this|that|another)(?: \w+)? "
    r"(?:ex|boss|manager|wife|husband|partner|boyfriend|girlfriend|brother|sister|mother|father|mum|mom|dad|neighbou?r|teacher|"
    r"classmates?|coworkers?|colleagues?|roommate|flatmate|man|woman|person|guy|girl|boy|kids?|child|children|stepdad|family))"
)
_PILLS = (
    r"(?:pills?|tablets?|meds|medication|paracetamol|tylenol|ibuprofen|aspirin|xanax|sleeping pills|antidepressants|painkillers|capsules)"
)
_MEANS = r"(?:gun|pistol|rifle|shotgun|bullet|rope|noose|knife|razor|blade|poison|drugs|" + _PILLS + r")"
_MEANING_IT = r"(?:(?:just|really|only|so|still|actually|honestly|do|always|literally) ){0,2}"
_MANY = (
    r"(?:\d{2,}|ten|twelve|fifteen|twenty|thirty|forty|fifty|a lot of|lots of|a load of|loads of|a bunch of|a handful of|handfuls of|all|"
    r"all of|too many|a whole (?:box|bottle|pack) of|the whole (?:box|bottle|pack)(?: of)?)"
)

RULES: Rules = {
    ("self_harm", "red"): (
        r"\b(?:(?:kill|killing|unalive|hang|hanging|drown|shoot|shooting) my ?self\b(?! (?:in (?:booze|work|the foot)|laughing|a bit|out))|(?:to|gonna|might|just) off my ?self\b)",
        r"\bkms\b",
        r"\b(?:end|ending|take|taking) my (?:own )?life\b",
        r"\bend(?:ing)? it all\b",
        r"\b(?:im|i am|feel|feeling|felt|been|being|so|still) (?:\w+ )?suicidal\b",
        r"\bsuicidal (?:thoughts?|ideation|feelings?|urges?)\b",
        r"\b(?:commit|committing|attempt|attempting|considering|contemplating|thinking (?:about|of)|thoughts of|planning) suicide\b",
        r"\b(?:my suicide|suicide note|goodbye (?:letters?|notes?)|(?:ive|have) written (?:the|my) notes?)\b",
        r"\bi " + _MEANING_IT + r"(?:want|wanna|wanted|need) (?:to )?(?:just )?die\b",
        r"(?<!you )(?<!they )(?<!we )(?<!who )(?<!people )(?<!dont )(?<!didnt )(?<!not )(?<!never )\b(?:want to|wanna) (?:just )?die\b",
        r"\b(?:end|ending) it (?:tonight |now |today )?with (?:(?:a|an|the|my|some|these|those|his|her) )?(?:\w+ ){0,2}?" + _MEANS + r"\b",
        r"\b" + _PILLS + r"\b[^.?!]{0,40}\b(?:going to|gonna|want to|wanna|could|will|ill) (?:just )?(?:take|swallow) (?:them all|all of them|the lot)\b",
        r"\b(?:tonight|today|tomorrow)\b[^.?!]{0,20}\bi die\b|(?<!if )\bi die (?:tonight|today|tomorrow)\b",
        r"\b(?:id|i would|ill|im|i am|be) better off dead\b",
        r"\bif im dead\b",
        r"\b(?:slit|slitting|slash|cut|cutting) my (?:wrists?|throat|arms?|veins)\b|\bcut(?:ting)? my ?self (?:on|across) (?:the|my|both) (?:wrists?|throat|veins)\b",
        r"\bjump(?:ing)? (?:off|from|in front of) (?:a|the|that|this) (?:\w+ )?(?:bridge|roof|building|balcony|cliff|overpass|train|bus|truck)\b",
        r"\b(?:want to|wanna|going to|gonna|about to|thinking of|could|should|might|ill|id) (?:just )?(?:step|stepping|walk|walking|run|running|throw my ?self|throwing my ?self) (?:out )?(?:in front of|under) (?:a|the|that) (?:\w+ )?(?:train|bus|truck|lorry|car)\b",
        r"\bsav(?:ed|ing|e) up (?:my|all my|the) (?:\w+ )?" + _PILLS,
        r"\bstockpil\w+ (?:my |the )?" + _PILLS,
        r"\b(?:noose|lethal dose|fatal dose)\b",
        r"\b(?:got|have) everything i need to do it\b",
        r"\bnow i have a date\b",
        r"\b(?:bridge|overpass|rope|tracks|roof|ledge)(?: \w+)? keeps? (?:looking at|calling|staring at) me\b",
    ),
    ("self_harm", "yellow"): (
        r"\b(?:cut|cutting|hurt|hurting|harm|harming|burn|burning|starve) my ?self\b",
        r"\b(?:cut|hurt|harm(?:ed)?|burn(?:ed|t)?) my ?self\b[^.?!]{0,40}\bon purpose\b",
        r"\bburn(?:ed|t) my ?self (?:again|with (?:a |the |my )?(?:lighter|cigarettes?|matches|iron))\b",
        r"\bi cut again\b|\b(?:started|back to|been) cutting again\b",
        r"\b(?:self harm|selfharm)(?:ing|ed)?\b",
        r"\b(?:wish|wished|wishing) (?:that )?i (?:was|were) (?:dead|never born|not (?:here|alive)|gone)\b",
        r"\b(?:wish|wished|wishing) (?:that )?i (?:wasnt|werent|was not|were not) (?:even |still )?(?:alive|born)\b",
        r"\bi (?:was|were|had been) never born\b",
        r"\bdont (?:really )?(?:want|wanna|wish) (?:to )?(?:be alive|live|exist|be here|be around|go on|keep living|wake up)(?! (?:with|in|for|at|near))\b",
        r"\b(?:wont|didnt|dont|not|never|couldnt) (?:just |ever )?wake up(?: again| tomorrow| in the morning)?(?=[.!?]|$| it | i | and it)",
        r"\b(?:no|any|what) (?:reason|point) (?:to|in|of) (?:live|living|go on|going on|be alive|being alive|be here|being here|carry on)\b",
        r"\b(?:nothing|not much|anything) (?:left )?to live for\b",
        r"\b(?:life|living) (?:is|isnt|is not) (?:not |no longer |even )?worth (?:living|it)\b",
        r"\b(?:everyone|everybody|they|the world|my \w+|people|you|kids|family)\b[^.?!]{0,20}\b(?:better off|happier|easier|better) (?:without me|if i (?:wasnt|werent|was gone|died|disappeared|was dead|just|didnt))",
        r"\b(?:no ?one|nobody|anyone|anybody)\b[^.?!]{0,12}\b(?:would|will|d) (?:even |ever )?(?:notice|miss me|care|know)\b[^.?!]{0,20}\bif i (?:was|were|died|disappeared|vanished|wasnt|werent|left)",
        r"\bif i (?:wasnt|werent|was not|were not|wasnt even) (?:around|here|alive)\b",
        r"\b(?:tired|sick) of (?:living|being alive|life|existing)\b",
        r"(?<!dont )(?<!didnt )\b(?:want|wanted|wish|need) (?:it all|everything|the pain|all of it|all this) to (?:just )?(?:be over|stop|end)\b",
        r"(?<!dont )(?<!didnt )\b(?:want|wanted) it to (?:stop|end|be over)(?=[.!?]|$| tonight)",
        r"\b(?:want|wanna) to (?:just )?(?:disappear|vanish|cease to exist|not exist|stop existing)(?! (?:into|from|for a|on|to))\b",
        r"\bdont (?:really )?care (?:if|whether) i (?:live|die|crash|survive|wake|make it)\b",
        r"\b(?:if something hits me|saves me the trouble)\b",
        r"\b(?:gave|given|giving) (?:away|my)\b[^.?!]{0,40}\b(?:peaceful|sorted|wont need|dont need|light|lighter|last)\b",
        r"\bfound (?:(?:a|new) (?:\w+ )?(?:home|homes|family|owner)|someone|somebody)\b[^.?!]{0,20}\b(?:for|to take|to have)\b[^?!]{0,60}\b(?:peaceful|light|lighter|calm|sorted|ready)\b",
        r"\b(?:affairs|everything|paperwork|things) (?:are |is |all )?(?:in order|sorted|arranged)\b[^?!]{0,80}\b(?:peaceful|light|lighter|calm|ready|free|done)\b",
        r"\b(?:peaceful|light|calm|free)\b[^?!]{0,30}\beverything sorted\b",
        r"\b(?:dont|cant|do not|cannot) see (?:myself anywhere|a future|any future|myself (?:getting|being) (?:old|older))\b",
        r"\b(?:its|be|is) my last (?:birthday|christmas|summer|day|night|message|one ever)\b(?! (?:at|of|in|on|here|before|working|as))",
        r"\bliterally my last one\b",
        r"\bwant to (?:go where|join|be with) (?:she|he|him|her|my \w+)(?: is| in heaven| again)\b",
        r"\b(?:pray|hope|hoping|praying) (?:that )?i (?:just )?(?:wont wake|dont wake|never wake|die|dont make it)\b",
        r"\b(?:ive always )?had the thoughts\b",
        r"\b(?:cant|cannot) (?:go on|do this|live like this|keep going) (?:any ?more|any longer)\b",
        r"\bthink(?:ing)? (?:about|of) (?:dying|death|not being here|ending)\b(?! (?:of|in|a|the) (?:laughter|my|contract|lease))",
        r"\bhurt my ?self\b",
        r"\bready to die\b",
        r"\bshut for a second\b|\beyes (?:shut|closed)\b[^.?!]{0,30}\bdriv|\bdriv\w+\b[^.?!]{0,40}\beyes (?:shut|closed)\b",
    ),
    ("method_seeking", "red"): (
        r"\b(?:least|most|more|less) (?:painful|painless|peaceful|quick|effective|reliable) (?:way|method|death)\b[^.?!]{0,30}\b(?:die|go|kill|suicide|end)\b",
        r"\b(?:painless|peaceful|quick|easiest|easy|best|fastest|surest|quickest)(?: \w+)? (?:ways?|methods?) (?:to|of|for)\b[^.?!]{0,25}\b(?:die|dying|suicide|kill(?:ing)? my ?self|hurt(?:ing)? my ?self|harm(?:ing)? my ?self|end(?:ing)? (?:it|my life))\b",
        r"\bhow (?:many|much)\b[^.?!]{0,40}\b(?:(?<!have )to die|to kill (?:me|my ?self|you|yourself|someone|a person|an adult)|would kill (?:me|you|someone|her|him|a person)|lethal|fatal|to overdose|to od)\b",
        r"\bwhich (?:pills|drugs|meds)\b[^.?!]{0,60}\b(?:save|die|kill|lethal)\b",
        r"\bwhat floor\b|\bhow high (?:do|does|would|should)\b[^.?!]{0,30}\b(?:jump|fall)\b",
        r"\bhow (?:to|do i|can i|would i|should i|do you|does one) (?:\w+ )?(?:hang|cut|kill|overdose|hurt|harm|burn|starve)(?:ing)? (?:my ?self|yourself|oneself)\b",
        r"\b(?:ways|methods) (?:to die|of suicide|to commit suicide)\b",
    ),
    ("third_party", "red"): (
        r"\b" + PERSON + r"\b[^.?!]{0,70}\b(?:kill|killing|hang|hanging|shoot|unalive) " + _THEM,
        r"\b(?:" + PERSON + r" (?:has |just |has just )|(?:hes|shes) (?:just )?)(?:hanged|hung|shot|killed|stabbed|poisoned) " + _THEM,
        r"\b" + PERSON + r"\b[^.?!]{0,70}\b(?:end|ending|take|taking) (?:his|her|their) (?:own )?li(?:fe|ves)\b",
        r"\b" + PERSON + r"\b[^.?!]{0,50}\b(?:took|taken|swallowed|taking)\b[^.?!]{0,20}\b" + _MANY + r"(?: \w+)? " + _PILLS,
        r"\b(?:post|posted|posts|text|texted|texts|sent|wrote|left|messaged)\b[^.?!]{0,30}\b(?:goodbye everyone|goodbye im sorry|love you always|dont be mad|im sorry for everything|suicide note)\b",
        r"\b(?:with|has|got|holding) (?:his|her|their|a|the) gun\b[^.?!]{0,60}\b(?:better|without|end|tired|over)\b",
        r"\b" + PERSON + r"\b[^.?!]{0,60}\bgone by \w+ and\b[^.?!]{0,20}\bknows how\b",
    ),
    ("third_party", "yellow"): (
        r"\b" + PERSON + r"\b[^.?!]{0,60}\b(?:wants?|wanted|wanting|wishes) to die\b",
        r"\b" + PERSON + r"\b[^.?!]{0,60}\b(?:is|was|are|seems?|been|feels?|feeling|sounds?|hes|shes) (?:\w+ )?suicidal\b",
        r"\b" + PERSON + r"\b[^.?!]{0,60}\b(?:attempt(?:ed|s)?|thinking (?:about|of)|talk(?:s|ing)? about|threaten(?:s|ed|ing)?) (?:suicide|killing|dying|ending)\b",
        r"\b" + PERSON + r"\b[^.?!]{0,60}\b(?:doesnt|dont|didnt) (?:want to|wanna) (?:live|be here|be alive|be around|go on|wake up)\b",
        r"\b(?:" + PERSON + r")\b[^.?!]{0,60}\b(?:no|any) (?:reason|point) (?:to|in) (?:live|living|go on|going on|be alive)\b",
        r"\b" + PERSON + r"\b[^.?!]{0,60}\b(?:cut|cuts|cutting|hurt|hurts|hurting|harm|harms|harming|burning) " + _THEM,
        r"\bcuts? (?:all )?(?:up|on|over|down)\b[^.?!]{0,20}\b(?:his|her|their|my \w+s) (?:arms?|wrists?|legs?|thighs?)\b",
        r"\b" + PERSON + r"\b[^.?!]{0,60}\bbetter off without (?:him|her|them)\b",
        r"\b(?:searching|searched|googling|googled|search)\b[^?!]{0,30}\bways to die\b",
        r"\blogging off for good\b|\bquick way out\b",
        r"\bsits? in (?:the|his|her) car in the garage\b",
    ),
    ("violence", "red"): (
        r"(?<!dont )(?<!didnt )(?<!never )(?<!not )\b(?:want to|wanna|going to|gonna|need to|plan to|planning to|ready to|about to|intend to) (?:\w+ )?(?:kill|stab|shoot|strangle|poison|murder|attack|choke|hurt)(?: the \w+ out of)? " + _TARGET + r"(?! (?:feelings|with kindness|if i (?:break|leave|say|tell)))",
        r"\b(?:ill|im|i will) (?:kill|stab|shoot|strangle|murder|poison) " + _TARGET,
        r"\bhow (?:to|do i|can i|could i|would i|should i|do you|can you)\b[^.?!]{0,30}\b(?:kill|poison|stab|murder|strangle|shoot|attack|beat up|hurt|drug|kidnap|torture|stalk) (?:\w+ )?" + _TARGET,
        r"\b(?:get away with|plan|planning|commit|committing) (?:a )?(?:murder|killing|an attack|a shooting|mass shooting)\b",
        r"\b(?:bring|bringing|carrying|hiding|ive got|hes got|shes got|taking)\b[^.?!]{0,12}\b(?:a|my|his|her|brothers|dads|the) (?:\w+ )?(?:gun|knife|bat|machete|rifle|pistol|blade)\b(?! (?:and no clue|set|block|sharpener))",
        r"\bshoot(?:ing)? up (?:the|my|a|his)\b|\bblow(?:ing)? up (?:the|my|a) (?:school|office|building|church|mosque|synagogue|train|station)\b",
        r"\b(?:make|build|making|building) (?:a|an|my own) (?:\w+ )?(?:bomb|explosive|pipe bomb|molotov|gun)\b",
        r"\bhes got guns\b|\bcarrying something now\b",
        r"\bparked outside (?:his|her|their) (?:house|flat|place|work|home)\b",
        r"\bif (?:he|i|she) cant have \w+,? (?:nobody|no ?one) (?:will|can|else)",
        r"\bwhen he gets out and ill be there\b",
        r"\b(?:should|could) (?:just )?give (?:her|him|the baby) back\b",
    ),
    ("violence", "yellow"): (
        r"\b(?:make|making) (?:him|her|them|my ex) (?:pay for|suffer|regret|bleed)\b",
        r"\b(?:revenge|get back at|getting back at|payback)\b[^.?!]{0,40}\b(?:plan|help|how|ideas?|on|for|him|her|them|my)\b",
        r"\b(?:fantasi[sz]\w*|dream\w*|picturing|thought|thoughts|think(?:ing)?)\b[^.?!]{0,30}\b(?:killing|poisoning|stabbing|shooting|strangling|hurting|shaking|dropping|smothering|hitting|drowning) (?:him|her|them|the|my)\b",
        r"\bpicturing dropping\b",
        r"\b(?:gonna|going to|gotta|needs? to|hell|shell) learn (?:what|not to|his lesson|her lesson|a lesson)\b|\bteach (?:him|her|them) a lesson\b",
        r"\bi (?:just )?(?:slapped|hit|punched|choked|shook|grabbed|kicked|smacked) (?:my )?(?:him|her|mum|mums|mom|dad|son|daughter|wife|husband|partner|girlfriend|boyfriend|kid|child|baby|the (?:baby|kid|kids|child)|\w+ by the (?:arm|neck|throat|hair))\b(?! out)",
        r"\bfollowed (?:him|her|them) (?:all the way )?(?:home|to (?:his|her|their))\b",
        r"\b(?:post|leak|share|send|posting|leaking)\b[^.?!]{0,15}\b(?:pics|pictures|nudes|photos|videos?)\b[^.?!]{0,25}\b(?:sent me|deserves?|ex|revenge|of her|of him)\b",
    ),
    ("abuse", "red"): (
        r"\b(?:he|she|they|husband|wife|boyfriend|girlfriend|bf|gf|partner|dad|mum|mom|father|mother|stepdad|stepfather|brother|ex|boss|uncle)(?: \w+)? (?:hit|hits|hitting|punched|punches|chokes?|choked|strangled|kicks|kicked(?! (?:me|us) out)|slaps?|slapped|beats|burnt|burned|raped|rapes|assaulted|stabbed|threatened to kill|pulled a (?:knife|gun) on) (?:me|us|my (?:mum|mom|sister|brother|kids?|son|daughter))\b(?! out| to (?:it|the))",
        r"\bbeat(?:s|ing)? (?:me|us|her|him|my (?:mum|mom)) up\b",
        r"\bhands? (?:round|around|on) my (?:neck|throat)\b",
        r"\bkill me if i (?:leave|tell|go|say)\b",
        r"\b(?:kicking|banging on|breaking down|smashing) (?:down |in )?the (?:bathroom |bedroom )?door\b",
        r"\b(?:raped|molested|sexually (?:abused|assaulted)) (?:me|us)\b|\bi (?:was|got|am being|have been|keep getting) (?:raped|molested|sexually (?:abused|assaulted))\b",
        r"\b(?:he|she|they|patch|husband|wife|partner|boyfriend|girlfriend)\b[^.?!]{0,30}\b(?:broke|fractured|split|blacked) my (?:wrist|arm|nose|lip|ribs?|jaw|eye)\b",
        r"\b(?:stepdad|dad|father|mum|mom|mother|stepmum) (?:split|broke|hit|beat|burnt|punched) (?:his|her|my)\b",
        r"\bkeeps? my (?:passport|papers)\b",
    ),
    ("abuse", "yellow"): (
        r"\b(?:he|she|they|son|daughter|husband|wife|boyfriend|girlfriend|partner)(?: \w+)? (?:reads?|checks?|tracks?|has|takes?|keeps?|controls?|collects?) (?:all )?my (?:messages|phone|passwords?|wages|money|pension|location|bank)\b",
        r"\b(?:he|she|they)(?: \w+)? (?:throws?|threw) (?:plates?|things|stuff|objects|furniture|a \w+|(?:his|her) \w+) at me\b",
        r"\b(?:he|she|they|husband|boyfriend|partner|madam) (?:wont|doesnt|never|not) (?:let|allow)s? me (?:to )?(?:leave|out|see my|go out|have money)\b",
        r"\b(?:im|i am|so|too) (?:scared|afraid|frightened|terrified) of (?:him|her|my (?:husband|wife|partner|boyfriend|girlfriend|dad|father|stepdad|mum|mom))\b",
        r"\b(?:touch(?:ed|es|ing)? me)\b[^.?!]{0,40}\b(?:when i was|uncle|stepdad|coach|priest|night|dont like|secret)\b",
        r"\bmy (?:uncle|stepdad|coach|cousin|grandad|priest|teacher) when i was (?:\w+|\d+)\b",
        r"\bgrab\w* (?:me|my arm|my wrist|my hair)\b[^.?!]{0,30}\b(?:marks|bruis\w+|hurt)\b",
        r"\bmy (?:\w+ )?ribs\b[^.?!]{0,20}\bheal",
    ),
    ("child_safety", "red"): (
        r"\b(?:wants|asked|asks|asking|told|makes|made|making|wanted|keeps asking)(?: me)?(?: to| for)?(?: send)?\b[^.?!]{0,20}\b(?:nudes?|pics without|naked pics?|pictures without|dirty pics?|pics of my (?:body|chest))",
        r"\b(?:im|i am) (?:9|10|11|12|13|14|15|nine|ten|eleven|twelve|thirteen|fourteen|fifteen)\b[^?!]{0,60}\b(?:man|older|adult|hes \d\d|grown)\b",
        r"\bgroom(?:ing)? (?:a |an )?(?:\w+ )?(?:child|kid|girl|boy|minor|teen|children|kids)\b",
        r"\b(?:how|write|show|give|where|describe|tips|find|share|send|want|create)\b[^.?!]{0,30}\b(?:sex|sexual|nude|nudes|naked|porn|erotic|seduce|molest)\w*\b[^.?!]{0,40}\b(?:child|children|minor|minors|underage|kids?|preteen|little (?:girl|boy)|\d{1,2} ?(?:year old|yo))\b",
    ),
    ("medical_emergency", "red"): (
        r"\b(?:crushing|tight|tightness|pressure|stabbing|sharp)\b[^.?!]{0,15}\b(?:chest|my heart)\b|\bchest (?:pains?|is tight|feels tight|tightness)\b|\btight chest\b",
        r"\b(?:left )?arms?(?:s)? (?:has |is |feels? |have )?(?:gone )?(?:heavy|numb)\b",
        r"\b(?:face|mouth)(?:s)? (?:has |is )?(?:dropp?(?:ed|ing|s)|droop\w*)\b|\bslurr(?:ed|ing) (?:his|her|my|their|speech|words)\b|\btalks? like drunk\b",
        r"\b(?:throat|tongue|lips?|face)(?: is| are| feels?)? (?:tight|closing|swelling|swollen)(?: up)?\b|\banaphyla",
        r"\b(?:cant|cannot|trouble|struggling to|hard to) (?:breathe|breathing|finish sentenc\w*)\b|\bnot breathing\b|\bstopped breathing\b|\bturn(?:ed|ing) blue\b",
        r"\b(?:wont|cant|isnt|not) (?:be )?(?:wake|waking|woken)(?: up)?\b[^.?!]{0,15}\bproperly\b|\b(?:he|she|mate|friend|mum|mom|dad|they) wont wake up\b|\b(?:is|found \w+|fell|lying|hes|shes) unconscious\b|\bunresponsive\b",
        r"\b(?:i|ive|i have|just|she|he|they|hes|shes) (?:just )?(?:took|taken|swallowed|ate|had) (?:about |like |around |roughly |almost )?" + _MANY + r"(?: of)?(?: \w+){0,2} " + _PILLS,
        r"\b(?:took|swallowed|taken) (?:a lot|a bunch|lots|loads|handfuls|too many|all) of (?:my |the |his |her )?(?:\w+ )?" + _PILLS,
        r"\b(?:took|taken)\b[^.?!]{0,20}\b(?:pills|tablets|meds|heart pills|dose) twice\b",
        r"\b(?:ive|i|he|she|they|mate|friend) (?:have |has |think i )?(?:just )?(?:overdosed|od d|odd)\b|\boverdosing\b",
        r"\bmix(?:ed|ing)\b[^.?!]{0,25}\b(?:vodka|alcohol|booze|wine|whisky|drink)\b[^.?!]{0,15}\b(?:with|and)\b[^.?!]{0,15}\b(?:xanax|valium|benzos?|lorazepam|opioids?|oxy\w*|codeine|pills|methadone)",
        r"\b(?:swallowed|drank|ate|swallow)\b[^.?!]{0,30}\b(?:batter(?:y|ies)|bleach|magnets?|antifreeze|poison|pods?)\b",
        r"\b(?:having (?:a |another )?(?:seizures?|fit)|just had a seizure|fitting on the|convulsing)\b|\bhaving a (?:stroke|heart attack)\b",
        r"\b(?:bleeding|blood)\b[^.?!]{0,20}\b(?:wont stop|wouldnt stop|heavily|everywhere|a lot|soak\w*)\b|\bwont stop bleeding\b|\bsoaked \d\b[^.?!]{0,12}\bpads\b|\bsoaked (?:two|three|four) (?:big )?pads\b",
        r"\b(?:coughing|vomiting|throwing|threw|coughed|vomited|bringing)(?: up)? blood\b",
        r"\bstiff neck\b|\bspots that dont fade\b|\bcarbon monoxide\b|\bco alarm\b|\binhalers? (?:isnt|not|doesnt|is not) (?:work\w*|help\w*)\b",
        r"\bdiabetic\b[^.?!]{0,40}\b(?:sweating|nonsense|confused|wont wake|shaking|passed out)\b|\b(?:ration\w*|stretch\w*|making)\b[^.?!]{0,10}\binsulin\b",
        r"\bpregnant\b[^?!]{0,60}\b(?:sharp pain|bleeding|fainted)\b|\b(?:passed out|fainted|collapsed)\b[^.?!]{0,40}\b(?:again|heart|shower|nearly|blood)\b|\bheart (?:keeps (?:skipping|racing)|does this fluttery)\b",
        r"\brash\b[^?!]{0,50}\b(?:mouth|sores|lips)\b",
        r"\bsnoring weird\b",
        r"\bcramp and i can hardly stand\b",
    ),
    ("eating_disorder", "yellow"): (
        r"\b(?:throw|throwing|threw|thrown|puke|puking|chuck) up (?:after|my (?:food|dinner|meals?|lunch)|everything i eat)\b",
        r"\b(?:make|making|made) my ?self (?:sick|throw up|vomit|puke)\b",
        r"\b(?:i (?:\w+ )?purged?|binge and purge|purging (?:after|again|my|every)|starv(?:e|ing|ed) my ?self|anorexi\w+|bulimi\w+)\b",
        r"\b(?:too many|taking|lots of|using|took)\b[^.?!]{0,12}\blaxatives\b",
        r"\b(?:havent|have not|not|barely|hardly|ive barely|i barely)(?: really)? (?:eaten|eat|ate)\b[^.?!]{0,20}\b(?:since|in|for|days?|week|today|anything)\b",
        r"\b(?:only |just |under |had |on |eat(?:ing)? )\d{2,3} (?:calories|cals|kcal)\b",
        r"\b(?:make|stop|ignore|kill|suppress)\b[^.?!]{0,8}\bhunger\b",
        r"\b(?:to eat|eating|eat) under\b|\bi want to be the (?:lightest|thinnest|skinniest)\b|\bweigh every gram\b|\bnobody asks why im not eating\b",
        r"\bi know she meant fat\b|\bso fat\b[^.?!]{0,20}\b(?:dont deserve|stop eating|disgusting)\b",
    ),
    ("psychosis", "red"): (
        r"\bvoices?\b[^.?!]{0,30}\b(?:tell|telling|say|saying|told|want)\b[^.?!]{0,40}\b(?:kill|hurt|jump|die|do it|window)\b",
        r"\b(?:they|it) keeps? (?:saying|telling me to) (?:go|jump|do it|kill|hurt)\b|\b(?:isnt|not|aint) mine they changed\b",
        r"\bputs? something in (?:the|my) (?:food|water|tea|drink)\b|\bpoison(?:ing|ed)? my (?:food|water)\b",
        r"\b(?:theyre|they are) (?:going to|gonna) make their move\b",
    ),
    ("psychosis", "yellow"): (
        r"\b(?:hear|hearing) (?:the |these )?voices\b|\bvoices in my head\b",
        r"\b(?:reading|hear|hearing|broadcasting|steal\w*|(?:phone|they|people|tv|neighbours) (?:can |could )?read) (?:my|his|her|their) (?:thoughts|mind)\b",
        r"\bsending me (?:secret |hidden )?messages (?:through|via|in|on)\b|\b(?:implanted?|chip) (?:in|into|a chip in) (?:my|me|his|her)\b",
        r"\b(?:see|seeing|saw)\b[^.?!]{0,40}\b(?:who|that|which) (?:arent|isnt|werent|wasnt) there\b|\bchildren in my garden at night\b",
        r"\b(?:say )?i(?:ve| have)? been chosen\b|\bif i pass ill be contacted\b|\bputting my initials\b",
        r"\bsame (?:grey|gray|black|white|blue|red) (?:van|car)\b[^?!]{0,60}\b(?:outside|following)\b",
    ),
}  # fmt: skip

_KIN = (
    r"(?:mum|mom|mam|dad|mother|father|son|daughter|husband|wife|partner|boyfriend|girlfriend|bf|gf|brother|sister|stepdad|stepmum|stepmom|"
    r"uncle|aunt|cousin|ex|boss|carer|roommate|flatmate|grandad|grandma|nan|kids|baby|little one|toddler|child)"
)
_SAYS = r"(?:said|says|saying|told|tells|keeps saying|threatened|threatens|threatening|texted|wrote|posted|joked|jokes)"

BROAD_RULES: Rules = {
    ("self_harm", "yellow"): (
        r"\bsuicid\w+\b",
        r"\bi (?:should|would rather|d rather|deserve to|tried to|want to|just want to|hope to|need to) (?:just )?(?:die|be dead|end it|not exist|never wake|jump (?:off|from|over|in front))\b",
        r"\b(?:when|once|after|if) (?:im|i am|ive|i) (?:gone|dead|not here|no longer here|die|died)\b(?! (?:to|from|for|home|out|on|back|away))",
        r"\bby the time (?:you|anyone|they) (?:read|see|find)s? this\b|\b(?:at|plan|planned|planning|come to|songs? for) my (?:own )?funeral\b",
        r"\b(?:staring at|looking at|counted|counting|lined up|hiding|hidden|hid|holding|collecting|collected|hoarding|found)\b[^.?!]{0,30}\b(?:pills|tablets|razors?|blades?|rope|the gun|my gun|bottle of pills)\b",
        r"\b(?:razors?|blades?|lighter|scissors|knife)\b[^.?!]{0,40}\b(?:my (?:arms?|wrists?|thighs?|legs?|skin|drawer|bathroom)|calls me|calling me|calm|helps)\b",
        r"\bmy (?:old |new )?(?:scars|cuts)\b|\b(?:hide|hiding|cover|covering) (?:my |the )?(?:scars|cuts|arms|burns|marks)\b",
        r"\b(?:hurt|hurting|harm|harming|cut|cutting|punish|punishing|burn|burning|hit|hitting|scratch|scratching|bite) my ?self\b",
        r"\brelaps(?:e|ed|ing)\b|\b(?:clean|clean streak) (?:for|from cutting|from self)\b[^.?!]{0,20}\b(?:days|weeks|months|cut\w*)\b",
        r"\b(?:standing|stood|sitting|sat|walk\w*|drove|driving|parked|waiting)\b[^.?!]{0,30}\b(?:bridge|ledge|edge|rooftop|roof|cliff|train tracks|tracks|platform|overpass|railing|parapet)\b",
        r"\b(?:bridge|platform|tracks|rooftop|balcony|cliff)\b[^.?!]{0,40}\b(?:jump|step off|let go|one step|easy|quick|over)\b",
        r"\b(?:say|saying|said|write|writing|wrote|written|record\w*|send\w*|sent)\b[^.?!]{0,20}\b(?:my goodbyes?|goodbye to|goodbye letters?|goodbyes|letters? to (?:everyone|my kids|my family|each))\b",
        r"\b(?:gun|pistol|rifle|rope|noose)\b[^.?!]{0,30}\b(?:my (?:hand|mouth|head|lap|closet|drawer|bed|neck)|loaded|tonight)\b|\bloaded (?:it|the gun|my)\b",
        r"\b(?:im|i am|being|feel like|such|just|be|become|am) (?:only |just |nothing but )?(?:a|such a) (?:burden|waste of (?:space|air|oxygen))\b",
        r"\b(?:dont|do not|didnt) (?:deserve|see (?:a|the|any)|want|have) (?:to (?:live|be alive|be here)|(?:reason|point) (?:in|to|of)|a future|tomorrow|any more (?:days|birthdays))\b",
        r"\b(?:no|only|easiest|my) way out\b|\bno (?:hope|future) (?:left|for me|anymore|any more)\b|\bhopeless\b[^.?!]{0,30}\b(?:anymore|die|end|tonight|life|everything)\b",
        r"\bwhats the point (?:of (?:anything|living|life|being|going)|any ?more|in (?:living|going|trying))\b|\bwhy (?:bother|keep) (?:living|going on)\b|\bwhy am i (?:even |still )?(?:alive|here)\b(?! with)",
        r"\b(?:cant|cannot|dont think i can|dont know if i can|not sure i can) (?:(?:take|do|keep doing|cope with) (?:it|this|living) (?:any ?more|any longer|another day)|(?:face|survive|get through) (?:another (?:day|night|week)|tonight|tomorrow|the night)|carry on)\b(?! (?:without|job|class|test|course))",
        r"\b(?:give|giving|given) up on (?:life|living|everything|myself)\b|\bim (?:so )?done with (?:life|living|everything|it all|this world)\b|\bdone (?:living|fighting|existing)\b",
        r"\b(?:the |dark |those |bad |scary |intrusive )thoughts (?:are|have|keep|came|come|got|getting|again|of (?:ending|dying|death|not))\b",
        r"\b(?:dont|not) (?:feel )?(?:safe|trust) (?:with myself|myself|alone tonight|to be alone|being alone)\b|\bdo something (?:stupid|silly|bad|drastic|permanent|i cant take back)\b",
        r"\b(?:go|going|went|fall|falling) to sleep (?:forever|and (?:not|never) wake)|\bsleep forever\b|\bnever have to wake\b|\bnot (?:be|being) (?:here|around|alive) (?:any ?more|tomorrow|next|much longer|for)\b",
        r"\bwont be (?:here|around|alive)\b(?! (?:today|until|till|for the|for dinner|on (?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)|this (?:week|weekend)))|\bwont (?:be a problem|have to worry about me|bother anyone)\b[^.?!]{0,30}",
        r"\b(?:would|will|does|did) anyone (?:even |really )?(?:notice|miss me|care|come)\b|\b(?:nobody|no ?one) (?:would|will|d) (?:even )?(?:notice|miss me|find me|come looking)\b",
        r"\b(?:life|living|existing|being alive|breathing|waking up) (?:is|feels|has become|just feels) (?:so |too )?(?:pointless|exhausting|unbearable|a chore|too much|meaningless|not worth)\b",
        r"\b(?:dead|die|dying|death)\b[^.?!]{0,25}\b(?:would be|sounds|seems|feels|looks) (?:like )?(?:a relief|nice|peaceful|easier|better|good|so much easier|restful|kind)\b",
        r"\b(?:look after|take care of|feed|have|take|keep|want) (?:my|the) (?:dog|cat|cats|kids|fish|plants|things|stuff|guitar|bike|books|records|watch|ring)\b[^.?!]{0,30}\b(?:when im gone|after im|if anything happens|if something happens|for good|instead of me|wont need)\b",
        r"\bi wont (?:need|be needing) (?:it|them|any of it|this|that)(?: any ?more| where im)?\b|\b(?:giving|gave|given) (?:all |away )?(?:my |everything )(?:\w+ )?(?:stuff|things|away|clothes|records|guitar|tools|books)\b",
        r"\b(?:made|makes|feel|feeling|finally at|so|at) (?:my )?peace (?:with it|now|about it|tonight|with (?:everyone|god|dying|death))\b|\b(?:made|have made) (?:up my mind|a decision)\b[^.?!]{0,30}\b(?:calm|peace\w*|over|tonight|done)\b",
        r"\b(?:wrote|written|updated|finished|made|sorted|redid) my will\b|\bmy affairs\b|\blife insurance\b[^.?!]{0,40}\b(?:dead|die|kids|worth more|pay|cover)\b|\bworth more dead\b",
        r"\b(?:wish|wishing|hoping|praying|hope|dream\w*) (?:that )?(?:a (?:car|truck|bus|lorry)|something|god|the plane|cancer|someone) (?:would|will|could)? ?(?:just )?(?:hit|take|kill|crash\w*|end)s? (?:me|it)\b|\b(?:car|truck|bus|lorry|train) (?:would|could) (?:just )?hit me\b",
        r"\b(?:swerve|crash|steer|drive)(?:d|ing)?\b[^.?!]{0,25}\b(?:into (?:a|the|that|on?coming)|off the (?:road|bridge|cliff))\b[^.?!]{0,30}",
    ),
    ("third_party", "yellow"): (
        r"\b(?:worried|scared|afraid|terrified|think|thinks?|convinced)\b[^.?!]{0,20}\b(?:he|she|they|hes|shes|theyre|" + _KIN + r"|friend|mate)\b[^.?!]{0,8}\b(?:might|will|ll|going to|gonna|could|may) (?:do something|hurt (?:him|her|them)sel|harm (?:him|her|them)sel|kill (?:him|her|them)sel|end (?:it|his|her|their)|try (?:it|again|something)|take (?:his|her|their) (?:own|life))",
        r"\b(?:he|she|they|" + _KIN + r"|friend|mate)\b[^.?!]{0,30}\b" + _SAYS + r"\b[^.?!]{0,40}\b(?:wont be (?:here|around)|not be (?:here|around)|be gone|better off (?:dead|without)|end it|wants out|die|dead|jump|miss (?:him|her|them|me)|wake up|done with life|cant go on|goodbye|no point)\b",
        r"\b(?:his|her|their|my \w+s) (?:scars|cuts|wrists|suicide|overdose|goodbye|note)\b",
        r"\b(?:found|saw|seen|noticed|discovered)\b[^.?!]{0,30}\b(?:a note|razors?|blades?|rope|pills|cuts|scars|blood|search history|burns)\b[^.?!]{0,40}\b(?:his|her|their|he|she|they|daughter|son|brother|sister|friend|room|arms?|bag|pillow|drawer|bed)\b",
        r"\b" + PERSON + r"\b[^.?!]{0,40}\b(?:gave|giving|given|gives) away (?:his|her|their|all)\b",
        r"\b(?:he|she|they|" + _KIN + r"|friend|mate)\b[^.?!]{0,40}\b(?:on|off) (?:the|a) (?:bridge|roof|ledge|balcony|tracks|cliff)\b",
        r"\b(?:he|she|they|" + _KIN + r"|friend|mate)(?:s| is| has| was)?\b[^.?!]{0,25}\b(?:locked (?:himself|herself|themselves|themself)|not (?:answering|picking up|replying)|wont (?:answer|pick up|open)|isnt (?:answering|picking up|replying))\b[^?!]{0,80}\b(?:note|pills|goodbye|sorry|knife|gun|scared|worried|last (?:text|message)|weird)\b",
        r"\b(?:he|she|they|" + _KIN + r"|friend|mate)\b[^.?!]{0,40}\b(?:has|got|bought|keeps|hid|took) (?:a |his |her |the |dads )?(?:gun|rifle|pistol|rope|shotgun)\b",
        r"\b(?:he|she|they|" + _KIN + r"|friend|mate)\b[^.?!]{0,30}\b(?:stopped|quit|wont|not|refuses?|refusing|doesnt)(?: to)? (?:eat|eating|drink|drinking|taking (?:his|her|their) (?:meds|insulin|pills))\b",
        r"\b(?:tried|trying|attempt\w*) to (?:kill|hang(?! (?:on|out|up|in))|drown|end|overdose)\b",
    ),
    ("violence", "yellow"): (
        r"\b(?:i|id|ill|im|ive)\b[^.?!]{0,25}\b(?:swear|gonna|going to|want to|wanna|could|feel like|urge to|tempted to|ready to|about to|thinking (?:about|of)|plan\w* (?:to|on)|keep imagining|imagine|fantasi\w+|dream\w* of)\b[^.?!]{0,20}\b(?:kill|killing|hurt|hurting|stab|stabbing|shoot|shooting|strangl\w+|smash\w*|punch\w*|poison\w*|attack\w*|beat\w*|burn\w*|hit|hitting|shak\w+|smother\w*|run|running)\b[^.?!]{0,12}\b(?:him|her|them|people|someone|somebody|everyone|over|my " + _KIN + r"|the (?:baby|kids?|dog|cat)|his|their)\b(?! (?:feelings|at (?:chess|the game|tennis)))",
        r"\b(?:know|found out|got|have) (?:where|his address|her address|their address)\b[^.?!]{0,12}\b(?:he|she|they)? ?(?:lives?|works?|parks?|sleeps?|address)\b[^?!]{0,60}\b(?:pay|sorry|wait\w*|tonight|knife|bat|gun|visit|regret|see what|hurt)\b",
        r"\b(?:he|she|they|hes|shes|theyre) (?:deserves?|needs?|ought|has|have) to (?:die|suffer|be (?:dead|killed|hurt|punished)|pay for|bleed|feel (?:pain|it))\b",
        r"\b(?:wish|want|hope)(?:ed|ing)? (?:he|she|they|him|her|them|my \w+) (?:was|were|to be|would|dies?|to die|to suffer|d)? ?(?:just )?(?:dead|die|died|drop dead|suffer|gone for good)\b",
        r"\b(?:scared|afraid|terrified|worried|frightened)\b[^.?!]{0,12}\b(?:of what )?i(?:ll| will| might| may| could| am going to|m going to|m gonna)? ?(?:do|hurt|harm|hit|snap|kill|lose it)\b[^.?!]{0,20}\b(?:to (?:him|her|them)|him|her|them|someone|the (?:baby|kids)|my \w+|one day)\b",
        r"\b(?:hurt|harm|kill) (?:other people|somebody|someone|people|others|anyone)\b",
        r"\b(?:lost (?:it|my temper|control)|snapped|saw red)\b[^?!]{0,50}\b(?:hit|slapped|shook|shoved|pushed|grabbed|threw|smacked|punched|kicked|choked|hurt)\b",
        r"\bi (?:\w+ )?(?:slapped|hit|smacked|shoved|pushed|shook|punched|choked|kicked|hurt|grabbed|bit|threw \w+ at) (?:my |the )?(?:\w+ )?" + _KIN + r"\b(?! (?:off|out|up))",
        r"\b(?:raised my (?:hand|fist)|put my (?:hands?|fists?) (?:on|through|around))\b",
        r"\b(?:he|she|they|guy|kid|boy|student|neighbour|" + _KIN + r")\b[^.?!]{0,30}\b" + _SAYS + r"\b[^.?!]{0,30}\b(?:kill|shoot|stab|hurt|burn|beat|bomb|attack|blow up|get (?:me|us|her|him))\b",
        r"\b(?:get|getting|take|taking|want|wanting|plan|planning|plotting|my|sweet|have|for) (?:my |some |our )?revenge\b|\bget (?:even with|my own back)\b|\b(?:hes|shes|theyre|he is|she is|they are|hell|shell|theyll) (?:gonna |going to )?(?:pay for (?:this|it|what)|be sorry|regret (?:it|this|crossing))\b|\bmake (?:him|her|them) (?:sorry|hurt|feel (?:what|the pain|how i)|scared)\b",
        r"\b(?:slash|cut|loosen)(?:ed|ing)?\b[^.?!]{0,12}\b(?:tyres|tires|brakes)\b|\bset fire to\b[^.?!]{0,15}\b(?:his|her|their|the)\b|\bburn (?:down )?(?:his|her|their) (?:house|car|stuff|place)\b|\brun (?:him|her|them) over\b",
        r"\b(?:guns?|knife|weapons?|machete)\b[^.?!]{0,30}\b(?:school|work|him|her|them|tomorrow|monday|locker|backpack|bag)\b",
        r"\b(?:spread|post|leak|share|send|upload)\w*\b[^.?!]{0,20}\b(?:nudes?|naked|private (?:pics|photos|pictures|videos?)|sex tape|intimate)\b",
    ),
    ("abuse", "yellow"): (
        r"\b(?:he|she|they|hes|shes|" + _KIN + r")(?: \w+){0,3} (?:hits?|hurts?|shoves?|shoved|pushes|pushed|grabs?|grabbed|kicks?|chokes?|slaps?|punches|threatens?|threatened|spits?|spat|pins?|pinned|drags?|dragged|locks?|locked|follows?|stalks?|stalking|controls?|forces?|forced|beats|burns|bit|bites|shakes|hitting|shaking|choking|hurting|threatening) (?:me|us|the kids|my (?:mum|mom|sister|brother|kids|son|daughter))\b(?! (?:up about|laughing|of (?:the|a|my)|to (?:work|be|do better)|feelings|out of))",
        r"\b(?:forced|forces|made|makes|pressured|pressures|guilts?|tricked) me (?:to |into )?(?:have sex|having sex|sex|sleep with|do (?:things|stuff)|touch|undress|kiss|watch)\b|\bi (?:said|kept saying|told him) (?:no|stop)\b[^?!]{0,30}\b(?:he|she|they|anyway|didnt stop|kept)\b",
        r"\b(?:bruises?|bruised|black eye|marks on (?:my|his|her)|split lip|broken (?:ribs?|wrist|arm|nose|finger)|busted lip)\b[^?!]{0,60}\b(?:he|she|him|her|husband|wife|partner|boyfriend|girlfriend|dad|stepdad|mum|long sleeves|makeup|make up|fell|door|hide|cover)\b|\b(?:he|she|dad|stepdad|husband|boyfriend|partner)\b[^.?!]{0,40}\b(?:bruises?|black eye|split lip|broken rib)\b",
        r"\b(?:scared|afraid|frightened|terrified|dont want|not safe|nervous) to (?:go|be|come|leave|get) (?:back )?home\b|\bwalk(?:ing)? on eggshells\b|\b(?:scared|afraid|frightened|terrified) of (?:him|my (?:\w+ )?" + _KIN + r"|what (?:he|she)(?:ll| will| might| would| could| does))\b",
        r"\b(?:he|she|they|" + _KIN + r")(?: \w+){0,2} (?:wont|doesnt|never|dont|didnt|not) (?:let|lets|allow|allows) me (?:see|leave|go|work|have|use|out|speak|drive|sleep|eat)\b",
        r"\b(?:he|she|they|" + _KIN + r")(?: \w+){0,2} (?:takes?|took|keeps?|has|hides?|hid|controls?|checks?|tracks?|reads?|goes through|went through|smashed|monitors?) (?:all )?(?:of )?my (?:money|phone|wages|keys|passport|card|cards|messages|pay|texts|location|id|papers|salary|email)\b",
        r"\b(?:threaten(?:s|ed|ing)?|says hell|says shell|said hed|said hell) (?:to )?(?:kill|take (?:the|my) kids|hurt|post|out me|burn|find me|call immigration|deport|kick me out)\b",
        r"\b(?:raped?|raping|assaulted|molested|molesting|groped|groping|grooming)\b[^.?!]{0,15}\b(?:me|us|her|him|my)\b|\b(?:was|been|got|being) (?:raped|assaulted|molested|groped|abused|beaten|stalked|trafficked|groomed)\b|\b(?:touche[sd]|touching|puts? his hands?|hands) (?:me (?:there|down|at night|when|in|under|where)|up my|under my)\b",
        r"\b(?:stepdad|step dad|mums boyfriend|moms boyfriend|uncle|coach|teacher|pastor|priest|cousin|boss|landlord)\b[^.?!]{0,40}\b(?:comes into my|came into my|in my (?:room|bed)|touch\w*|secret|alone with|hits|hit|hurt\w*|kissed|pics|pictures|undress\w*|watches me)\b",
        r"\b(?:forced|forcing|force|made|making|make) (?:me |her |him )?(?:to )?(?:marry|get married)\b|\b(?:airtag|gps|tracker|hidden camera)\b[^.?!]{0,30}\b(?:my|me)\b|\blocked (?:me )?(?:in|out|inside|in the) (?:the |my |a )?(?:room|house|bathroom|bedroom|basement|flat)\b",
        r"\b(?:hits|hit|beats|hurts|slaps|hitting|beating) (?:my|the) (?:mum|mom|kids?|sister|brother|baby|dog)\b|\bdad (?:drinks|is drunk|gets drunk|was drunk)\b[^.?!]{0,40}",
    ),
    ("eating_disorder", "yellow"): (
        r"\b(?:skip|skipped|skipping|skips) (?:all |my |most )?(?:meals?|lunch|dinner|breakfast|food)\b[^?!]{0,60}\b(?:weight|fat|thin|skinny|proud|strong|control|days|again|lose|feel|kg|pounds|calories)\b",
        r"\b(?:fast|fasting|fasted|without food|no food|not eaten|nothing but (?:water|coffee|gum))\b[^.?!]{0,20}\b(?:\d+|two|three|four|five|six|seven) (?:days?|hours|weeks?)\b",
        r"\b\d{2,4} ?(?:calories|cals|kcal|cal)\b[^.?!]{0,40}\b(?:today|a day|per day|max|only|limit|all day|is too|enough|under|too much)\b|\b(?:count|counting|restrict\w*) (?:every )?(?:calories?|intake|food)\b",
        r"\b(?:fingers?|toothbrush) down my throat\b|\b(?:throw|throwing|threw|bring|bringing|get|puke|puking|vomit\w*|chuck\w*)(?: (?:it|everything|my food|food))? (?:all )?(?:back )?(?:up|rid of it)\b[^.?!]{0,25}\b(?:after|eat|ate|food|meal|dinner|lunch|cake)\b|\bsick after (?:i eat|eating|every|meals|dinner|lunch)\b",
        r"\b(?:binge|binged|binging|bingeing)\b[^?!]{0,40}\b(?:purge|sick|throw|vomit|laxatives?|hate|disgust\w*|fast|ashamed|starv\w*|run|gym)\b|\blaxatives?\b|\bdiet pills\b|\bpro ana\b|\bthinspo\b|\bthigh gap\b|\bgoal weight\b|\bchew and spit\b",
        r"\b(?:afraid|scared|terrified|fear) (?:of|to) (?:eat\w*|food|gain\w*|weight|getting fat|calories|meals?)\b|\b(?:dont|not|cant|wont|stopped|barely|hardly|refuse to|refusing to) (?:allow(?:ed)? (?:myself )?to |let myself |deserve to )?(?:eat|eating)\b[^.?!]{0,30}\b(?:any ?more|until|fat|weight|anything|thin|days?|because|unless|in front)\b",
        r"\b(?:lose|losing|lost|drop) (?:another |just |only )?\d+ ?(?:kg|kilos?|lbs?|pounds|stone)\b[^?!]{0,50}\b(?:still|more|fat|fast|week|days|eat\w*|period|faint\w*|not enough)\b|\b(?:weigh|weighing|weighed) (?:myself )?(?:\w+ )?(?:\d+ )?(?:times a day|every (?:hour|morning|day|meal)|after)\b",
        r"\b(?:periods?) (?:has |have )?(?:stopped|gone|hasnt|havent|disappeared)\b[^?!]{0,60}\b(?:weight|eat\w*|thin|coach|run\w*|diet)\b|\bhair (?:is )?falling out\b[^?!]{0,40}\b(?:eat\w*|weight|diet)\b",
        r"\b(?:disgusting|gross|huge|fat|pig|whale)\b[^.?!]{0,25}\b(?:eat|ate|eating|food|body|mirror|stomach|thighs)\b[^.?!]{0,20}\b(?:stop|never|hate|again|punish|run|gym)\b|\b(?:ana|mia|the eating disorder|my eating disorder|my ed)\b(?= (?:is|says|tells|voice|wins|came|back|again))",
        r"\bpunish\w* (?:myself )?(?:for eating|with (?:exercise|running))\b|\b(?:burn|burned|run|ran|walk|exercise)\b[^.?!]{0,25}\b(?:off (?:everything|what|the|dinner|lunch|every)|every calorie|until i (?:faint|collapse))\b",
    ),
    ("psychosis", "yellow"): (
        r"\b(?:the |a |these |those |his |her )?voices? (?:is|are|say|says|said|tell|tells|told|want|wont|keep|keeps|in|get|got|came|come)\b[^.?!]{0,30}\b(?:me|my|stop|back|louder|head|do|again)\b",
        r"\b(?:they|someone|people|neighbou?rs?|government|fbi|cia|police|everyone|he|she)(?: are|re| is|s)? (?:\w+ )?(?:watching|spying on|following|listening to|tracking|after|filming|recording|poisoning|controlling|reading|monitoring|coming for|out to get|plotting against)(?: me| us| my| him| her)\b",
        r"\b(?:cameras?|microphones?|bugs?|chips?|wires?|transmitters?)\b[^.?!]{0,20}\b(?:in (?:the|my|his|her) (?:walls?|house|flat|head|teeth|tooth|room|smoke|ceiling|arm|brain|food|light)|hidden|everywhere)\b",
        r"\b(?:tv|radio|telly|television|newsreader|songs?|number plates|licen[cs]e plates|adverts?|billboards?|fridge|radiator|app|phone)\b[^.?!]{0,25}\b(?:talking|speaking|messages?|signals?|codes?|secret|signs?) (?:to|for|about|at|meant for)? ?(?:me|just me|us|him|her)\b",
        r"\b(?:god|jesus|angels?|demons?|allah|the devil|satan|spirits|aliens|jinn)\b[^.?!]{0,15}\b(?:told|tells|speaks?|spoke|chose|chosen|telling|wants|orders?|commands?|talks|in my)\b[^.?!]{0,10}\b(?:me|to me|him|her|head|room)\b|\bi(?:m| am) (?:the )?(?:chosen|messiah|prophet|christ|a prophet)\b|\bspecial mission\b",
        r"\b(?:replaced (?:by|with)|been replaced|impost[eo]r|imposters?|clone|body double|not (?:really )?my (?:real )?(?:mum|mom|wife|husband|son|daughter|dad))\b[^.?!]{0,30}\b(?:her|him|my|by|with|they|face|someone|a|real)\b",
        r"\b(?:havent|not|hasnt|without|no) (?:slept|sleep|sleeping|needed sleep)\b[^.?!]{0,20}\b(?:for |in )?(?:\d|two|three|four|five|six|seven|days|nights|a week)\b[^?!]{0,100}\b(?:amazing|brilliant|genius|energy|ideas|special|voices?|seeing|watching|never felt|dont need|power\w*|messages?)\b",
        r"\b(?:see|seeing|saw|sees) (?:things|people|figures?|shadows?|faces?|bugs|insects|a man|a woman|demons?)\b[^.?!]{0,30}\b(?:not there|arent|isnt|corner|nobody else|no one else|walls?|disappear|that others)\b|\bhallucinat\w+\b|\bparanoi[ad]\b[^.?!]{0,40}\b(?:watch\w*|follow\w*|camera|real|food|phone)\b",
        r"\b(?:thoughts?|mind|brain)\b[^.?!]{0,20}\b(?:being (?:read|stolen|controlled|broadcast\w*|put)|arent mine|not my own|inserted|beamed|hear my)\b|\b(?:everyone|people|they) can hear (?:my|what i)\b",
    ),
    ("medical_emergency", "red"): (
        r"\bchests?\b[^.?!]{0,25}\b(?:hurts?|hurting|pains?|pressure|squeez\w+|heavy|crush\w*|burn\w*|elephant|tight\w*)\b|\b(?:pains?|pressure|squeez\w+|tightness) (?:in|on|across) (?:my|his|her|the) (?:\w+ )?chest\b",
        r"\b(?:arm|jaw|face|leg|side|hand)s?\b[^.?!]{0,15}\b(?:numb|tingl\w+|weak|paraly[sz]ed|droop\w*|wont move|cant move|cant lift|cant feel)\b|\b(?:cant|cannot|couldnt) (?:lift|move|feel) (?:my|his|her) (?:\w+ )?(?:arm|leg|face|side|hand|legs)\b",
        r"\b(?:short|out) of breath\b|\b(?:struggl\w+|hard|difficult\w*|trouble|gasping|fighting) (?:to |for )?(?:breath\w*|air)\b|\bbreathing (?:is |has )?(?:fast|weird|shallow|hard|noisy|funny|stopped)\b|\bwheez\w+\b[^.?!]{0,30}\b(?:cant|wont|inhaler|worse|lips)\b|\blips (?:are |is |look |went |gone )?(?:blue|grey|gray|purple)\b",
        r"\b(?:throat|tongue|lips?|face|airway)\b[^.?!]{0,15}\b(?:swell\w*|swollen|puff\w*|closing up|is closing|tight\w*)\b|\bhives\b[^.?!]{0,40}\b(?:breath\w*|throat|swell\w*|dizzy)\b|\bepi ?pen\b",
        r"\b(?:cough\w*|vomit\w*|throw\w* up|spit\w*|pee\w*|poo\w*|pooping|passing|peeing) (?:up )?(?:\w+ )?blood\b|\bblood (?:in|from) (?:my|his|her|the) (?:vomit|stool|poo|pee|urine|ears?|cough)\b|\b(?:black|tarry) (?:stool|poo|poop)s?\b|\b(?:bleed|bleeding|bled)\b[^.?!]{0,25}\b(?:bad\w*|lot|stop|through|pads?|heavily|hours|pregnan\w*|spurting|everywhere|out)\b|\blos(?:t|ing) (?:a lot of|so much|too much) blood\b",
        r"\b(?:took|taken|take|had|given|gave|swallowed|drank|downed|necked|popped)\b[^.?!]{0,15}\b(?:too (?:many|much)|double|twice|whole|entire|extra|wrong|all (?:my|his|her|the)|a handful|handful|loads|the rest)\b[^.?!]{0,30}\b(?:pills?|tablets?|meds?|medicine|medication|dose|paracetamol|tylenol|ibuprofen|insulin|bottle|packet|pack|box|antidepressants|sleeping)\b",
        r"\boverdos\w+\b|\b(?:od d|oded|oding)\b",
        r"\b(?:is unconscious|unconscious and|hes unconscious|shes unconscious|not responding to me|(?:just|has|hes|shes|mum|mom|dad|keeps?|nearly) (?:passed|blacking|passing|blacked) out|(?:just|has|hes|shes) collapsed|(?:he|she|they|baby) wont wake|cant wake (?:him|her|them|my)|hard to wake|floppy|not breathing|isnt breathing|stopped breathing)\b(?! (?:on the (?:sofa|couch|bed)|from (?:exhaustion|laughing)|drunk last))",
        r"\b(?:seizures?|convuls\w+|fitting|foaming)\b[^.?!]{0,40}\b(?:now|minutes|again|wont|stop|first|still|mouth|floor|on the|just|shak\w+|never had)\b",
        r"\b(?:speech|words|talking|speaking|sentences?)\b[^.?!]{0,20}\b(?:slurr\w*|jumbled|garbled|funny|make no sense|makes no sense|mixed up|wrong|nonsense)\b|\bone side\b[^.?!]{0,25}\b(?:droop\w*|numb|weak|face|down|smile)\b|\bsmile\b[^.?!]{0,20}\b(?:crooked|lopsided|one side|wonky)\b",
        r"\bworst headache\b|\bthunderclap\b|\b(?:sudden|exploding|blinding) (?:\w+ )?headache\b|\b(?:lost|losing|cant see|suddenly cant see|gone blind|loss of|double)\b[^.?!]{0,12}\b(?:sight|vision|out of (?:my|one)|in one eye)\b",
        r"\b(?:hit|banged|bumped|smashed|cracked|landed on|knocked) (?:my|his|her|their|the) head\b|\bfell\b[^.?!]{0,30}\b(?:stairs|ladder|roof|on (?:his|her|my) head|down the|off the)\b[^?!]{0,50}\b(?:dizzy|vomit\w*|sick|sleepy|head|confus\w*|cant move|blood|neck|hip)\b|\bhead injury\b",
        r"\b(?:baby|newborn|infant|toddler|\d+ (?:week|month)s? old|weeks old|months old|days old)\b[^?!]{0,70}\b(?:fever|wont feed|not feeding|floppy|limp|(?:gone|going|turning|lips) blue|hard to wake|rash|not breathing|hasnt (?:had a )?wet|wont wake|swallowed|grunting|choking)\b|\bfever\b[^?!]{0,60}\b(?:neck|rash|confus\w*|light|seizure|spots|baby|weeks old|shak\w+|wont come down)\b",
        r"\b(?:swallowed|drank|drunk|ate|eaten|chewed|inhaled|got into)\b[^.?!]{0,25}\b(?:batter\w+|magnets?|bleach|detergent|cleaner|drain|antifreeze|berries|mushrooms?|coins?|poison|pesticide|weed ?killer|petrol|rat|nicotine|vape|tablets|pills|pods?|chemicals?)\b",
        r"\b(?:choking|choked)\b[^.?!]{0,30}\b(?:cant|grape|food|now|breath\w*|on a)\b|\bstuck in (?:my|his|her) throat\b|\b(?:snake|adder|black widow)\b[^.?!]{0,15}\bbit\w*\b|\bstung\b[^?!]{0,50}\b(?:swell\w*|throat|breath\w*|dizzy|hives|faint)\b|\bbone (?:is )?(?:sticking|poking)\b",
        r"\b(?:smell|smells|smelling) (?:of )?gas\b|\bgas leak\b|\bcarbon monoxide alarm\b|\b(?:everyone|all of us|we all|whole family)\b[^.?!]{0,25}\b(?:headaches?|dizzy|sick)\b[^?!]{0,60}\b(?:boiler|heater|generator|alarm|stove|gas|fire)\b",
        r"\b(?:blood sugar|sugars?|glucose|ketones?|insulin)\b[^?!]{0,50}\b(?:high|low|skip\w*|ran out|run out|half|ration\w*|thirsty|vomit\w*|shak\w+|\d{2,3}|stretch\w*|missed|stopped)\b",
        r"\b(?:pregnant|weeks pregnant|\d+ weeks|trimester)\b[^?!]{0,80}\b(?:bleed\w*|pains?|cramp\w*|not moving|hasnt moved|isnt moving|moving less|waters|headache|vision|swollen|faint\w*|contractions)\b|\bbaby\b[^.?!]{0,15}\b(?:hasnt|isnt|not|stopped|less) (?:moved|moving|kicked|kicking|movement)\b|\b(?:gave birth|postpartum|after the birth|c section)\b[^?!]{0,70}\b(?:bleed\w*|blood|clots?|fever|pads?|dizzy|leg|breath\w*|headache)\b",
        r"\b(?:stopped|quit|quitting|off) (?:drinking|the drink|booze|alcohol|benzos|xanax|valium|lorazepam)\b[^?!]{0,70}\b(?:shak\w+|sweat\w*|seeing|seizure|fit|heart|hallucinat\w*|cold turkey)\b|\b(?:snoring|gurgling)\b[^?!]{0,50}\b(?:wont wake|cant wake|took|drunk|pills|drugs|blue)\b",
        r"\b(?:calf|leg)\b[^.?!]{0,30}\b(?:swollen|hot|red|clot)\b[^?!]{0,60}\b(?:pain|breath\w*|flight|chest|hurts)\b|\b(?:testicle|ball)s?\b[^.?!]{0,20}\b(?:pain|swollen|hurts?|agony|twisted)\b|\b(?:stiff neck|rigid (?:belly|stomach)|appendi\w+)\b|\b(?:lower right|right side)\b[^.?!]{0,25}\b(?:pain|agony|hurts)\b",
        r"\bheart(?:s|beat)?\b[^.?!]{0,15}\b(?:racing|pounding|skipping|irregular|fluttery|fluttering|stopp\w+|weird)\b[^?!]{0,50}\b(?:faint\w*|dizzy|pass\w* out|chest|breath\w*|hours|days|eat\w*|vomit\w*|pills|caffeine|grey|sweat\w*)\b|\b(?:keep|keeps|kept) fainting\b|\bfainted (?:again|twice|today|this morning|just now|and)\b|\bjust fainted\b",
        r"\b(?:third degree|severe|bad|badly|boiling|blister\w*)\b[^.?!]{0,15}\b(?:burn|burnt|burned|scald\w*|water)\b[^?!]{0,50}\b(?:skin|face|arm|hand|baby|toddler|blister\w*|white|peel\w*)\b|\b(?:deep|gaping|big) (?:cut|gash|wound)\b|\belectrocuted\b|\bheat ?stroke\b",
    ),
}  # fmt: skip
"""Concepts rather than sentences: a thing and what is done with it, near each other. They carry most of the recall on strangers' words."""

_PARTNER = r"(?:him|her|them|(?:my |the |this )?(?:bf|gf|boyfriend|girlfriend|partner|husband|wife|fiancee?|guy|girl|man|woman))"
_TREAT = (
    r"(?:chocolates?|coffee|sugar|sweets|candy|cake|cookies|biscuits|cheese|pizza|ice cream|carbs|christmas|netflix|tv|films?|movies?|series|"
    r"episodes?|memes|tiktok|news|nostalgia|cuteness|sunshine|pumpkin spice)"
)

IDIOMS: tuple[str, ...] = (
    r"\b(?:i )?" + _MEANING_IT + r"(?:want|wanna|wanted|need) (?:to )?(?:just )?die (?:of|from) (?:laughter|laughing|boredom|embarrassment|cringe|shame)\b",
    r"\bhow (?:to|do i|can i|could i|would i|should i|do you|can you) (?:kill|terminate) (?:a |the |my |this |all )?child (?:process(?:es)?|threads?|tasks?)\b",
    r"\blaugh(?:ed|ing)? (?:so (?:hard|much) )?(?:that )?i (?:just |literally )?cant breathe\b|\bcant breathe (?:laughing|lol|haha\w*)\b",
    r"\b(?:cut|cutting) my ?self (?:shaving|some slack|off|short|a slice|a piece|chopping|cooking|while (?:shaving|cooking|chopping)|on (?:a |an |the |my |some )?(?:(?:bread|kitchen|tin|broken|sharp) )?(?:paper|knife|tin|lid|can|glass|thorns?|nail|fence|grater|wire|plate))\b",
    r"\bhurt my ?self (?:at (?:the gym|work|football|practice)|(?:while )?(?:playing|running|lifting|skiing|falling|moving|cooking|cleaning|dancing|training|gardening))\b",
    r"\b(?:\d+|few|many|hundred|thousand) ?kms\b|\bkms (?:away|per|an hour)\b",
    r"\bi (?:should|want to|just want to|need to|would rather|tried to) (?:just )?end it with " + _PARTNER + r"\b",
    r"\bsuicide (?:squad|bunt|pass|run|drills?|doors?|bombers?|awareness|prevention|hotline|burn)\b|\bsuicides? (?:in|at) (?:practice|training)\b",
    r"\b(?:(?:ive|i|he|she|they) (?:have |has |think i )?(?:just )?)?overdos(?:e|ed|ing) on (?:my |the |some |too much )?" + _TREAT + r"\b",
    r"\b(?:im|i am|id) not suicidal\b|\b(?:wouldnt|would never|never would|id never) (?:kill|hurt|harm) (?:my ?self|anyone|him|her|them|a fly)\b",
    r"\b(?:sick|tired) of (?:living|life) (?:in|with|at|near|out of) (?:a |an |the |my |this |that |these |such )?(?:\w+ )?(?:house|flat|apartment|dorm|hotel|room|city|town|village|place|country|suitcase|parents|mum|mom|dad|family|people|flatmates?|roommates?|housemates?)\b",
)  # fmt: skip
"""Each explains a match that some rule would make inside it, and nothing else: it names its objects, so that no hole can hold a risk."""
